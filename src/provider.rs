//! The providers: a slice from which configuration keys, metric labels, the docs table and the conformance tests come.

pub mod contract;
pub mod extract;

use contract::Provider;

/// Every provider the gate knows by name.
pub static PROVIDERS: &[&Provider] = &[];

/// The provider with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().copied().find(|p| p.name == name)
}
