//! Settings: what a person writes (`file`, `cli`) and what the rest of the house trusts (`checked`).
pub mod checked;
