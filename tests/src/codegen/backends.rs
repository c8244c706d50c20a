//! Which functions belong to which backend.

use super::{compile::CRATE, listing::Function, names, syntax::Syntax};

/// A backend with vector registers, as this check expects it.
#[derive(Debug)]
struct Expected {
    /// Its module in the kernel crate, which is also the name that `A2ATS_ISA` knows.
    name: &'static str,
    syntax: Syntax,
    bits: u32,
}

/// What must be there. A backend that is missing and one that is not listed are both failures.
const EXPECTED: [Expected; 5] = [
    Expected { name: "avx512bf16", syntax: Syntax::X86_64, bits: 512 },
    Expected { name: "avx512", syntax: Syntax::X86_64, bits: 512 },
    Expected { name: "avx2", syntax: Syntax::X86_64, bits: 256 },
    Expected { name: "neonbf16", syntax: Syntax::AArch64, bits: 128 },
    Expected { name: "neon", syntax: Syntax::AArch64, bits: 128 },
];

/// The backend that is left alone: it is whatever the compiler makes of it.
const PORTABLE: &str = "portable";

/// A backend and its kernel table, as found in the assembly.
#[derive(Debug)]
pub(super) struct Backend {
    /// The name that `A2ATS_ISA` knows.
    pub(super) name: String,
    /// The path of its token's type.
    token: String,
    /// The width of its registers.
    pub(super) bits: u32,
    /// Its entries of the kernel table: the method's name and the function.
    pub(super) table: Vec<(String, usize)>,
}

impl Backend {
    /// Whether a function is compiled for this backend: generic ones name its token.
    pub(super) fn owns(&self, function: &Function) -> bool {
        names::mentions(&function.name, &self.token)
    }
}

/// The vector backends, in the order they are expected, and what is wrong with them as a whole.
pub(super) fn find(functions: &[Function], syntax: Syntax) -> (Vec<Backend>, Vec<String>) {
    let mut wrong = Vec::new();
    let mut found: Vec<Backend> = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let Some((token, method)) = table_entry(&function.name) else { continue };
        let name = token.rsplit("::").nth(1).unwrap_or(token);
        if let Some(backend) = found.iter_mut().find(|backend| backend.token == token) {
            backend.table.push((method.to_owned(), index));
        } else if name != PORTABLE {
            let expected = EXPECTED.iter().find(|expected| expected.name == name);
            if expected.is_none() {
                wrong.push(format!(
                    "backend {name} is not known to this check: add it to codegen/backends.rs"
                ));
            }
            let (name, token, bits) =
                (name.to_owned(), token.to_owned(), expected.map_or(0, |known| known.bits));
            found.push(Backend { name, token, bits, table: vec![(method.to_owned(), index)] });
        }
    }
    for expected in EXPECTED.iter().filter(|expected| expected.syntax == syntax) {
        if !found.iter().any(|backend| backend.name == expected.name) {
            wrong.push(format!("no kernel table of backend {} in the assembly", expected.name));
        }
    }
    found.sort_by_key(|backend| EXPECTED.iter().position(|expected| expected.name == backend.name));
    (found, wrong)
}

/// The token and the method of an entry of the kernel table: `<token as …::Kernels>::method`.
fn table_entry(name: &str) -> Option<(&str, &str)> {
    let (token, rest) = name.strip_prefix('<')?.split_once(" as ")?;
    let (path, method) = rest.split_once("::Kernels>::")?;
    (path.starts_with(CRATE) && !method.contains("::")).then_some((token, method))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Function {
        Function { symbol: String::new(), name: name.to_owned(), blocks: Vec::new() }
    }

    #[test]
    fn finds_tables_and_misses_none() {
        let functions = [
            function("<a2ats_kernel::arch::avx512::Avx512 as a2ats_kernel::dispatch::Kernels>::rotate"),
            function("<a2ats_kernel::arch::portable::Portable as a2ats_kernel::dispatch::Kernels>::rotate"),
            function(
                "<a2ats_kernel::arch::avx2::Avx2 as a2ats_kernel::dispatch::Kernels>::rotate::{closure#0}",
            ),
            function("a2ats_kernel::dots::dots::<a2ats_kernel::arch::avx512::Avx512, f32>"),
            function("a2ats_kernel::dots::dots::<a2ats_kernel::arch::avx512bf16::Avx512Bf16, f32>"),
        ];
        let (backends, wrong) = find(&functions, Syntax::X86_64);
        assert_eq!(backends.len(), 1);
        assert_eq!((backends[0].name.as_str(), backends[0].bits), ("avx512", 512));
        assert_eq!(backends[0].table, [("rotate".to_owned(), 0)]);
        let owned: Vec<bool> = functions.iter().map(|function| backends[0].owns(function)).collect();
        assert_eq!(owned, [true, false, false, true, false]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn an_unknown_backend_is_wrong() {
        let functions =
            [function("<a2ats_kernel::arch::amx::Amx as a2ats_kernel::dispatch::Kernels>::rotate")];
        let (_, wrong) = find(&functions, Syntax::AArch64);
        assert!(wrong.iter().any(|wrong| wrong.contains("backend amx is not known")), "{wrong:?}");
        assert!(wrong.iter().any(|wrong| wrong.contains("no kernel table of backend neon")), "{wrong:?}");
    }
}
