//! What is run once per model.

pub mod calibrate;
