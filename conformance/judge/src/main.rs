//! `conformance-judge [--trace] --testee COMMAND [ARGUMENT...]`: see `conformance/README.md`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the report of a program")]
fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    let trace = args.first().is_some_and(|arg| arg == "--trace");
    if trace {
        args.remove(0);
    }
    if args.len() < 2 || args.remove(0) != "--testee" {
        eprintln!("usage: conformance-judge [--trace] --testee COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    }
    match conformance_judge::judge(&args, trace) {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(!report.passed()))
        }
        Err(why) => {
            eprintln!("conformance-judge: {why}");
            ExitCode::FAILURE
        }
    }
}
