//! The `a2ats` command, run as its users run it.

mod bad_input;
mod calibrate;
mod chat;
mod common;
mod cuda;
mod parquet;
mod prompts;
mod usage;
