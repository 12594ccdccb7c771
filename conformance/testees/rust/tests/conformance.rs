//! Runs the conformance cases with the Rust SDK.
//!
//! `MSB_CONFORMANCE=text` selects cases; `MSB_TEST_TIME_SCALE=number` scales every time on a slow
//! machine. See `conformance/README.md`.

#[test]
fn every_conformance_case_holds_in_rust() {
    let testee = [env!("CARGO_BIN_EXE_conformance-testee").into()];
    let report = conformance_judge::judge(&testee, false).unwrap();
    println!("{report}");
    assert!(report.passed(), "{report}");
}
