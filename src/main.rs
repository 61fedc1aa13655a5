//! Parses the command line, hands over, and sets the exit code.

fn main() {}
