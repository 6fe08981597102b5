//! I/O leaves without a domain word.
