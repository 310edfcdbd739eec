//! The network, one connection a look: addresses are vetted, TLS is recorded, phases are timed, bodies are bounded.

pub(crate) mod address;
pub(crate) mod connect;
pub(crate) mod fetch;
pub(crate) mod old_tls;
pub(crate) mod tls;
