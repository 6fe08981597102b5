//! Vocabulary of the house: ids, who someone is, refusals, limits, the clock. Std only; imports nothing of ours.

pub mod clock;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod pressure;
pub mod rate;
pub mod refusal;
pub mod rng;
pub mod wheel;
