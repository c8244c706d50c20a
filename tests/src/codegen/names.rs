//! Names of functions, as people write them.

/// The name that a symbol stands for, without hashes; itself if it is not mangled.
pub(super) fn demangled(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// Whether `name` holds `path` as a whole path, not as the beginning of a longer one.
pub(super) fn mentions(name: &str, path: &str) -> bool {
    name.match_indices(path).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + path.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `name` is an intrinsic, or a wrapper around one: both live in modules called `core_arch`. Something generic
/// is not one because it is made for a type from there.
pub(super) fn is_intrinsic(name: &str) -> bool {
    let path = name.trim_start_matches('<').split(|c| !is_word(c) && c != ':').next();
    path.is_some_and(|path| mentions(path, "core_arch"))
}

/// Whether `name` is a method of the trait `Simd` for some backend, and not something inside of one.
pub(super) fn is_simd_method(name: &str) -> bool {
    name.strip_prefix('<')
        .and_then(|name| name.split_once("::simd::Simd>::"))
        .is_some_and(|(before, method)| before.contains(" as ") && method.chars().all(is_word))
}

/// Whether `name` is code that was meant to be part of its caller: a closure, or something of the standard library
/// that one was handed to.
pub(super) fn is_callback(name: &str, own_crate: &str) -> bool {
    name.ends_with('}') || !name.trim_start_matches('<').starts_with(own_crate)
}

/// A name to read: paths without their modules, and the entry into an instruction set as what runs in it.
pub(super) fn short(name: &str) -> String {
    let within = name.split_once("::vectorize::").and_then(|(_, entry)| entry.split_once("::<"));
    let name = within.and_then(|(_, work)| work.strip_suffix('>')).unwrap_or(name);
    let name = name.strip_suffix("::{closure#0}").filter(|_| within.is_some()).unwrap_or(name);
    let mut out = String::new();
    let mut word = String::new();
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if is_word(c) {
            word.push(c);
        } else if c == ':' && rest.next_if_eq(&':').is_some() {
            // A segment goes if another one follows it; before `<` or `{` it is the name itself.
            let segment = std::mem::take(&mut word);
            match rest.peek() {
                Some(&next) if is_word(next) && !segment.is_empty() => {}
                Some('<') if !segment.is_empty() => out.push_str(&segment),
                _ => out = out + &segment + "::",
            }
        } else {
            out.push_str(&std::mem::take(&mut word));
            out.push(c);
        }
    }
    out + &word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demangles_both_ways() {
        let new = "_RINvNtCs1Nh1I0OnTSJ_12a2ats_kernel4dots4dotsNtNtNtB4_4arch6avx5126Avx512fEB4_";
        assert_eq!(demangled(new), "a2ats_kernel::dots::dots::<a2ats_kernel::arch::avx512::Avx512, f32>");
        assert_eq!(demangled("_ZN4core9panicking5panic17h0123456789abcdefE"), "core::panicking::panic");
        assert_eq!(demangled("memcpy"), "memcpy");
    }

    #[test]
    fn shortens() {
        let entry = "<a::arch::avx2::Avx2>::vectorize::imp::<a::dots::dots<a::arch::avx2::Avx2, half::bfloat::bf16>::{closure#0}>";
        assert_eq!(short(entry), "dots<Avx2, bf16>");
        let method = "<a::arch::avx2::Avx2 as a::dispatch::Kernels>::rotate";
        assert_eq!(short(method), "<Avx2 as Kernels>::rotate");
        assert_eq!(
            short("a::dots::dots_of::<a::arch::avx2::Avx2, 3>::{closure#1}"),
            "dots_of<Avx2, 3>::{closure#1}"
        );
    }

    #[test]
    fn knows_pieces_of_kernels() {
        assert!(is_intrinsic("core::core_arch::x86::avx512f::_mm512_fmadd_ps"));
        assert!(is_intrinsic("<pulp::core_arch::x86::Avx512f>::_mm512_add_ps"));
        assert!(!is_intrinsic("a2ats_kernel::dots::dots"));
        assert!(!is_intrinsic("core::ptr::drop_in_place::<core::core_arch::x86::__m512>"));
        assert!(is_simd_method("<a::arch::avx2::Avx2 as a::simd::Simd>::add"));
        assert!(!is_simd_method("<a::arch::avx2::Avx2 as a::dispatch::Kernels>::rotate"));
        assert!(is_callback("core::array::try_from_fn::<T, {closure}>", "a2ats_kernel"));
        assert!(is_callback("a2ats_kernel::dots::tile::<f32>::{closure#0}", "a2ats_kernel"));
        assert!(!is_callback("a2ats_kernel::dots::dots::<f32>", "a2ats_kernel"));
        assert!(!is_callback(
            "<a2ats_kernel::arch::avx2::Avx2>::vectorize::imp::<f::{closure#0}>",
            "a2ats_kernel"
        ));
    }
}
