//! `msb doctor` and `msb setup`.

use crate::failure::Failure;
use crate::text::table;
use crate::{output, progress, stdio};
use microsandbox::{DriverReport, HostReport, WallReport};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Prints which drivers and walls of the jail are available on this host.
pub(crate) async fn doctor(json: bool) -> Result<u8, Failure> {
    let report = microsandbox::doctor().await?;
    match json {
        true => output::print_json(&host_json(&report))?,
        false => output::print(host_text(&report))?,
    }
    Ok(0)
}

/// Downloads a guest kernel and prints its path.
pub(crate) async fn setup_kernel(to: Option<PathBuf>, quiet: bool) -> Result<u8, Failure> {
    let message = "downloading Debian's kernel for virtual machines, about 30 MB";
    let kernel = progress::spin(quiet, message, microsandbox::setup_kernel(to)).await?;
    output::print(format!("{}\n", kernel.display()))?;
    Ok(0)
}

/// Builds gVisor's program unless it is there, and prints its path.
pub(crate) async fn setup_gvisor(quiet: bool) -> Result<u8, Failure> {
    let message = "building runsc from gVisor's Go module, which takes minutes";
    let made = progress::spin(quiet, message, microsandbox::setup_gvisor()).await?;
    if !made.built && !quiet {
        stdio::report_on_new_line("runsc is there already; nothing was built");
    }
    output::print(format!("{}\n", made.program.display()))?;
    Ok(0)
}

fn host_json(report: &HostReport) -> Value {
    json!({
        "drivers": report.drivers.iter().map(driver_json).collect::<Vec<_>>(),
        "walls": report.walls.iter().map(wall_json).collect::<Vec<_>>(),
    })
}

fn host_text(report: &HostReport) -> String {
    let drivers = report.drivers.iter().map(driver_row).collect();
    let mut text = table(["DRIVER", "ISOLATION", "USABLE", "DETAILS"], drivers);
    text.push_str(&default_driver(&report.drivers));
    if !report.walls.is_empty() {
        let walls = report.walls.iter().map(wall_row).collect();
        text.push('\n');
        text.push_str(&table(["WALL", "AVAILABLE", "DETAILS"], walls));
    }
    let unlimited = |driver: &DriverReport| {
        let row = |what: &String| [driver.driver.clone(), what.clone()];
        driver.unbounded.iter().map(row).collect::<Vec<_>>()
    };
    let unlimited: Vec<[String; 2]> = report.drivers.iter().flat_map(unlimited).collect();
    if !unlimited.is_empty() {
        text.push('\n');
        text.push_str(&table(["DRIVER", "NO LIMIT ON"], unlimited));
    }
    text
}

fn driver_json(report: &DriverReport) -> Value {
    json!({
        "driver": report.driver,
        "isolation": report.isolation,
        "usable": report.usable,
        "why": report.why,
        "hint": report.hint,
        "unbounded": report.unbounded,
    })
}

fn wall_json(wall: &WallReport) -> Value {
    json!({ "wall": wall.name, "missing": wall.missing, "hint": wall.hint })
}

fn wall_row(wall: &WallReport) -> [String; 3] {
    let details: Vec<&str> = wall.missing.iter().chain(&wall.hint).map(String::as_str).collect();
    [wall.name.clone(), yes_or_no(wall.missing.is_none()), details.join("; ")]
}

fn driver_row(report: &DriverReport) -> [String; 4] {
    let details = match &report.hint {
        Some(hint) => format!("{}; {hint}", report.why),
        None => report.why.clone(),
    };
    [report.driver.clone(), report.isolation.to_string(), yes_or_no(report.usable), details]
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// Returns which driver is used without `--driver`.
fn default_driver(reports: &[DriverReport]) -> String {
    let is_default = |report: &&DriverReport| report.usable && report.isolation.is_strong();
    match reports.iter().find(is_default) {
        Some(report) => format!("\nThe default driver is {}.\n", report.driver),
        None => "\nThere is no default driver: none with strong isolation is usable. \
                 Choose a weaker one with --driver or MSB_DRIVER.\n"
            .to_owned(),
    }
}
