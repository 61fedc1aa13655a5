//! Parses the command line, hands over, and sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    oncegate::cli::main()
}
