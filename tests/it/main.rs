//! The integration tests, in one binary so that they are linked once; each file is named as the part it tests.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod acme;
mod admin;
mod alerts;
mod asked;
mod attack;
mod backends;
mod checkout;
mod cli;
mod clients;
mod confirm;
mod dashboards;
mod demo;
mod dialect;
mod exchange;
mod founding;
mod fuzz;
mod gate;
mod hostile;
mod http2;
mod inquiry;
mod languages;
mod listener;
mod lookup;
mod missing;
mod money;
mod packaging;
mod papers;
mod passthrough;
mod people;
mod prometheus;
mod providers;
mod proxy_protocol;
mod queue;
mod reload;
mod restart;
mod returns;
mod review;
mod samples;
mod slow;
mod support;
mod telemetry;
mod tidy;
mod tls;
mod webhooks;
