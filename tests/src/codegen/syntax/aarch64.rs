//! AArch64.

use super::{Access, Arithmetic, Effects, Width};

pub(super) fn effects(mnemonic: &str, operands: &str) -> Effects {
    let first = operands.trim_start_matches(['{', ' ']);
    let vector = is_vector_register(first);
    let memory = operands.contains('[').then_some(()).and_then(|()| match mnemonic.get(..2) {
        Some("ld") => Some(Access::Load),
        Some("st") => Some(Access::Store),
        _ => None,
    });
    Effects {
        arithmetic: if vector { arithmetic(mnemonic, first) } else { None },
        call: matches!(mnemonic, "bl" | "blr"),
        vector,
        memory,
    }
}

/// Whether the text begins with a SIMD and floating-point register: `v0.4s`, `q0`, `d0`, `s0`, `h0`, `b0`.
fn is_vector_register(text: &str) -> bool {
    let mut chars = text.chars();
    matches!(chars.next(), Some('v' | 'q' | 'd' | 's' | 'h' | 'b'))
        && chars.next().is_some_and(|c| c.is_ascii_digit())
}

fn arithmetic(mnemonic: &str, destination: &str) -> Option<Arithmetic> {
    let multiply_add = matches!(
        mnemonic,
        "fmla"
            | "fmls"
            | "fmlal"
            | "fmlal2"
            | "fmlsl"
            | "fmlsl2"
            | "fmadd"
            | "fmsub"
            | "fnmadd"
            | "fnmsub"
            | "bfdot"
            | "bfmmla"
            | "bfmlalb"
            | "bfmlalt"
    );
    let plain = matches!(
        mnemonic,
        "fadd"
            | "fsub"
            | "fmul"
            | "fnmul"
            | "fdiv"
            | "fsqrt"
            | "fmin"
            | "fmax"
            | "fminnm"
            | "fmaxnm"
            | "faddp"
    );
    (multiply_add || plain).then(|| Arithmetic { width: width(destination), multiply_add, outdated: false })
}

/// The width that a destination register's arrangement stands for.
fn width(destination: &str) -> Width {
    let register = destination.split(',').next().unwrap_or(destination).trim();
    match register.split_once('.').map(|(_, arrangement)| arrangement) {
        Some("2s" | "4h" | "8b" | "1d") => Width::Packed(64),
        Some(_) => Width::Packed(128),
        None => Width::Scalar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instruction: &str) -> Effects {
        let (mnemonic, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
        effects(mnemonic, operands)
    }

    fn arithmetic(instruction: &str) -> Option<(Width, bool)> {
        of(instruction).arithmetic.map(|found| (found.width, found.multiply_add))
    }

    #[test]
    fn arithmetic_by_width() {
        assert_eq!(arithmetic("fmla v6.4s, v0.4s, v2.4s"), Some((Width::Packed(128), true)));
        assert_eq!(arithmetic("fmla v6.4s, v0.4s, v2.s[1]"), Some((Width::Packed(128), true)));
        assert_eq!(arithmetic("fmla v6.2s, v0.2s, v2.2s"), Some((Width::Packed(64), true)));
        assert_eq!(arithmetic("bfdot v6.4s, v0.8h, v2.8h"), Some((Width::Packed(128), true)));
        assert_eq!(arithmetic("fmadd s0, s1, s2, s3"), Some((Width::Scalar, true)));
        assert_eq!(arithmetic("fmul s0, s1, s2"), Some((Width::Scalar, false)));
        assert_eq!(arithmetic("add x0, x1, #16"), None);
        assert_eq!(arithmetic("shl v0.4s, v1.4s, #16"), None);
    }

    #[test]
    fn memory_and_calls() {
        let vector_load = Effects { vector: true, memory: Some(Access::Load), ..Effects::default() };
        assert_eq!(of("ldp q0, q4, [x12, #-16]"), vector_load);
        assert_eq!(of("ld1r { v0.4s }, [x8]"), vector_load);
        assert_eq!(of("str q5, [sp, #496]"), Effects { memory: Some(Access::Store), ..vector_load });
        assert!(!of("ldp x29, x30, [sp, #64]").vector);
        assert!(!of("str wzr, [sp, #64]").vector);
        assert!(of("bl memcpy").call && of("blr x8").call);
        assert!(!of("b.ne .LBB94_22").call);
    }
}
