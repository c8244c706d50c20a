//! x86-64 in AT&T syntax.

use super::{Access, Arithmetic, Effects, Width};

/// Vector registers by the names of their widths.
const REGISTERS: [(&str, u32); 3] = [("%zmm", 512), ("%ymm", 256), ("%xmm", 128)];

pub(super) fn effects(mnemonic: &str, operands: &str) -> Effects {
    let bits = REGISTERS.iter().find(|(name, _)| operands.contains(name)).map(|&(_, bits)| bits);
    let memory = operands.contains('(').then(|| {
        // The address is the only operand with parentheses; as the last operand it is the destination.
        let last = operands.rfind(')').map_or("", |end| &operands[end..]);
        if last.contains(',') { Access::Load } else { Access::Store }
    });
    Effects {
        arithmetic: bits.and_then(|bits| arithmetic(mnemonic, bits)),
        call: mnemonic.starts_with("call"),
        vector: bits.is_some() || operands.contains("%k"),
        memory,
    }
}

fn arithmetic(mnemonic: &str, bits: u32) -> Option<Arithmetic> {
    let modern = mnemonic.strip_prefix('v');
    let operation = modern.unwrap_or(mnemonic);
    let fused = ["fmadd", "fmsub", "fnmadd", "fnmsub"].iter().any(|name| operation.starts_with(name));
    let multiply_add = fused || operation == "dpbf16ps";
    let (name, kind) = operation.split_at_checked(operation.len().checked_sub(2)?)?;
    let plain = matches!(name, "add" | "sub" | "mul" | "div" | "min" | "max" | "sqrt" | "hadd");
    let width = match kind {
        "ps" | "pd" | "ph" => Width::Packed(bits),
        "ss" | "sd" | "sh" => Width::Scalar,
        _ => return None,
    };
    (plain || multiply_add).then_some(Arithmetic { width, multiply_add, outdated: modern.is_none() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instruction: &str) -> Effects {
        let (mnemonic, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
        effects(mnemonic, operands)
    }

    fn arithmetic(instruction: &str) -> Option<(Width, bool, bool)> {
        of(instruction).arithmetic.map(|found| (found.width, found.multiply_add, found.outdated))
    }

    #[test]
    fn arithmetic_by_width() {
        assert_eq!(
            arithmetic("vfmadd231ps (%rdi,%r8), %zmm2, %zmm1"),
            Some((Width::Packed(512), true, false))
        );
        assert_eq!(arithmetic("vfnmadd213ps %ymm2, %ymm2, %ymm1"), Some((Width::Packed(256), true, false)));
        assert_eq!(arithmetic("vdpbf16ps 64(%rax), %zmm2, %zmm1"), Some((Width::Packed(512), true, false)));
        assert_eq!(arithmetic("vfmadd231ss %xmm1, %xmm2, %xmm3"), Some((Width::Scalar, true, false)));
        assert_eq!(arithmetic("vmulps %xmm1, %xmm2, %xmm3"), Some((Width::Packed(128), false, false)));
        assert_eq!(arithmetic("addps %xmm1, %xmm2"), Some((Width::Packed(128), false, true)));
        assert_eq!(arithmetic("vmovups (%rcx,%rax,4), %zmm0"), None);
        assert_eq!(arithmetic("vpaddd %zmm0, %zmm1, %zmm2"), None);
        assert_eq!(arithmetic("addq $32, %rax"), None);
        assert_eq!(arithmetic("vcvtph2ps (%rcx), %zmm0"), None);
    }

    #[test]
    fn memory_and_calls() {
        assert_eq!(of("vmovups (%rcx,%rax,4), %zmm0").memory, Some(Access::Load));
        assert_eq!(of("vmovups %zmm0, 64(%rcx,%rax,4)").memory, Some(Access::Store));
        assert_eq!(of("vmovups %zmm0, (%rdi) {%k1}").memory, Some(Access::Store));
        assert_eq!(of("vfmadd231ps (%rax){1to16}, %zmm2, %zmm1").memory, Some(Access::Load));
        assert_eq!(of("vaddps %zmm0, %zmm1, %zmm2").memory, None);
        assert!(!of("prefetcht1 (%rdi)").vector);
        assert!(of("callq *memset@GOTPCREL(%rip)").call);
        assert!(!of("jne .LBB1_2").call);
    }
}
