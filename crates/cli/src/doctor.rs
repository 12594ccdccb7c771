//! `msb doctor`.

use crate::failure::Failure;
use crate::list::document;
use crate::table::table;
use crate::{progress, stdio};
use microsandbox::DriverReport;
use microsandbox::sandbox::Isolation;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Tells which drivers can be used here.
pub(crate) async fn doctor(json: bool) -> Result<u8, Failure> {
    let reports = microsandbox::doctor().await?;
    let text = if json {
        document(reports.iter().map(report_json).collect())
    } else {
        let rows = reports.iter().map(row).collect();
        table(["DRIVER", "ISOLATION", "USABLE", "WHY"], rows) + &chosen(&reports)
    };
    stdio::print(text.as_bytes())?;
    Ok(0)
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
    })
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
