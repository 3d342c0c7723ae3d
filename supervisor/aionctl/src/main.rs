//! The `aionctl` program: see the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    aionctl::main(std::env::args_os())
}
