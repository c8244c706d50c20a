//! The `a2ats` command.

fn main() {}
