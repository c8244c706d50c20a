//! Attends some rows once: a program short enough to count its instructions.
//!
//! ```sh
//! cargo build --release -p a2ats-kernel --example attend_once
//! for rows in 1024 2048; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/attend_once avx2 $rows
//! done
//! ```
//!
//! The cache always has 2048 rows, so the difference of two counts is what attending the further rows takes. Other
//! architectures are counted under emulation: `qemu-aarch64 -one-insn-per-tb -d exec,nochain -D LOG` writes a line for
//! each instruction.

use a2ats_kernel::{
    Dtype, Error,
    attention::{Partial, Scratch},
    by_name,
    rows::{Run, Runs},
    store::{Layout, Store},
};

const ROWS: usize = 2048;
const HEAD_DIM: usize = 128;
const GROUP: usize = 4;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(isa), Some(Ok(attended))) = (arguments.next(), arguments.next().map(|rows| rows.parse()))
    else {
        eprintln!("usage: attend_once ISA ROWS, with at most {ROWS} rows");
        std::process::exit(2);
    };
    let numbers: Vec<f32> =
        (0..ROWS * HEAD_DIM).map(|i| (i.wrapping_mul(2_654_435_761) % 2048) as f32 / 1024.0 - 1.0).collect();
    let layout = Layout { dtype: Dtype::Bf16, head_dim: HEAD_DIM, codes: 0, window: 1, sinks: 0 };
    let mut store = Store::new(layout, ROWS)?;
    store.append(&numbers, &numbers, &[])?;
    let (areas, runs) = (store.areas(), [Run::new(0, 0..ROWS)]);
    let rows = Runs::new(&areas, &runs)?;
    let mut partial = Partial::default();
    let mut out = vec![0.0; GROUP * HEAD_DIM];
    let queries = &numbers[..GROUP * HEAD_DIM];
    by_name(&isa)?.attend(&rows, 0..attended, queries, 0.088, &mut Scratch::default(), &mut partial)?;
    partial.finish(&mut out)?;
    println!("{}", out[0]);
    Ok(())
}
