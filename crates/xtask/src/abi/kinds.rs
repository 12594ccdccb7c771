//! Which error kind a status is, in every language: from `of_kind` of `src/status.rs` and the names
//! of `microsandbox::ErrorKind`.

use super::model::Abi;
use microsandbox::ErrorKind;

/// A status, the kind that it is reported as, and the names of both.
#[derive(Debug)]
pub(crate) struct Kind {
    /// `MSB_E_TIMED_OUT`
    pub(crate) status: String,
    pub(crate) value: i64,
    /// `TimedOut`
    pub(crate) variant: String,
    /// `timed_out`
    pub(crate) name: &'static str,
}

/// Statuses that no error of Rust has: a handle that is not open is a closed one.
const MORE: [(&str, &str); 1] = [("Closed", "MSB_E_HANDLE")];

/// Every negative status, in the order of the header. Where two kinds have one status, it is the
/// first of them.
pub(crate) fn all(abi: &Abi) -> Result<Vec<Kind>, String> {
    let more = MORE.map(|(kind, status)| (kind.to_owned(), status.to_owned()));
    let known: Vec<_> = abi.statuses.iter().cloned().chain(more).collect();
    let failures = abi.constants.iter().filter(|(name, _)| name.starts_with("MSB_E_"));
    let kinds = failures.map(|(status, value)| {
        let kind = known.iter().find(|(_, of)| of == status);
        let (variant, _) = kind.ok_or_else(|| format!("{status} is of no error kind"))?;
        let kind = ErrorKind::ALL.iter().find(|kind| format!("{kind:?}") == *variant);
        let kind = kind.ok_or_else(|| format!("{variant} is not an error kind"))?;
        Ok(Kind {
            status: status.clone(),
            value: *value,
            variant: variant.clone(),
            name: kind.name(),
        })
    });
    kinds.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_and_every_kind_is_in_the_table() {
        let abi = Abi::read(&crate::run::root().join("src")).unwrap();
        let table = all(&abi).unwrap();
        assert_eq!(
            table.len(),
            abi.constants.iter().filter(|(n, _)| n.starts_with("MSB_E_")).count()
        );
        for kind in ErrorKind::ALL {
            let has = abi.statuses.iter().any(|(variant, _)| *variant == format!("{kind:?}"));
            assert!(has, "{kind:?} has no status of its own in of_kind");
        }
    }
}
