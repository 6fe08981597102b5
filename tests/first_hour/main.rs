//! Every refusal a newcomer meets, met with the real program: what is said names what was wrong, where, and what to do. Two
//! tables, one for the command and one for what comes in by the network; a new refusal is a new row.

mod requests;
mod starts;
#[path = "../support/mod.rs"]
mod support;
