//! The embedded pages, by path. Bytes only.

/// The page at a path: content type and bytes. There is none yet.
pub fn page(_path: &str) -> Option<(&'static str, &'static [u8])> {
    None
}
