//! The embedded pages: bytes that are part of the program, found by path. Read-only, on whichever shard is asked; it must never
//! touch a file or build a page.

/// The page at `path`: its content type and its bytes. `None` where there is no page; this build carries none.
pub fn page(path: &str) -> Option<(&'static str, &'static [u8])> {
    const PAGES: &[(&str, &str, &[u8])] = &[];
    PAGES
        .iter()
        .find(|(at, _, _)| *at == path)
        .map(|(_, content_type, bytes)| (*content_type, *bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_page_where_none_is_embedded() {
        for path in ["/", "/index.html", "", "/../Cargo.toml"] {
            assert_eq!(page(path), None, "{path}");
        }
    }
}
