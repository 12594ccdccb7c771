//! `msb doctor`.

use crate::failure::Failure;
use crate::table::table;
use crate::{progress, stdio};
use microsandbox::sandbox::Isolation;
use microsandbox::{DriverReport, HostReport, WallReport};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Shows which drivers and which walls of the jail can be had here.
pub(crate) async fn doctor(json: bool) -> Result<u8, Failure> {
    let report = microsandbox::doctor().await?;
    let text = if json { format!("{:#}\n", host_json(&report)) } else { host_text(&report) };
    stdio::print(text.as_bytes())?;
    Ok(0)
}

fn host_json(report: &HostReport) -> Value {
    json!({
        "drivers": report.drivers.iter().map(report_json).collect::<Vec<_>>(),
        "walls": report.walls.iter().map(wall_json).collect::<Vec<_>>(),
    })
}

fn host_text(report: &HostReport) -> String {
    let drivers = report.drivers.iter().map(row).collect();
    let mut text = table(["DRIVER", "ISOLATION", "USABLE", "WHY"], drivers);
    text.push_str(&chosen(&report.drivers));
    if !report.walls.is_empty() {
        let walls = report.walls.iter().map(wall_row).collect();
        text.push('\n');
        text.push_str(&table(["WALL", "HERE", "WHAT TO DO"], walls));
    }
    let unbounded: Vec<[String; 2]> = report
        .drivers
        .iter()
        .flat_map(|driver| {
            driver.unbounded.iter().map(|what| [driver.driver.clone(), what.clone()])
        })
        .collect();
    if !unbounded.is_empty() {
        text.push('\n');
        text.push_str(&table(["DRIVER", "NOT BOUNDED"], unbounded));
    }
    text
}

/// Fetches a guest kernel, and prints its path.
pub(crate) async fn setup_kernel(to: Option<PathBuf>, quiet: bool) -> Result<u8, Failure> {
    let what = "fetching Debian's kernel for virtual machines, about 30 MB";
    let kernel = progress::during(quiet, what, microsandbox::setup_kernel(to)).await?;
    stdio::print(format!("{}\n", kernel.display()).as_bytes())?;
    Ok(0)
}

fn report_json(report: &DriverReport) -> Value {
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
    let here = if wall.missing.is_none() { "yes" } else { "no" };
    let texts: Vec<&str> = wall.missing.iter().chain(&wall.hint).map(String::as_str).collect();
    [wall.name.clone(), here.to_owned(), texts.join("; ")]
}

fn row(report: &DriverReport) -> [String; 4] {
    let usable = if report.usable { "yes" } else { "no" };
    let why = match &report.hint {
        Some(hint) => format!("{}; {hint}", report.why),
        None => report.why.clone(),
    };
    [report.driver.clone(), report.isolation.to_string(), usable.to_owned(), why]
}

/// What is taken when nobody names a driver.
fn chosen(reports: &[DriverReport]) -> String {
    let strong =
        reports.iter().find(|report| report.usable && report.isolation == Isolation::Hardware);
    match strong {
        Some(report) => format!("\nWithout --driver, {} is used.\n", report.driver),
        None => "\nWithout --driver, none is used: that takes hardware isolation. \
                 Name a weaker one with --driver or MSB_DRIVER.\n"
            .to_owned(),
    }
}
