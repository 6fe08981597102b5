//! The embedded pages: the stage and what it loads, bytes that are part of the program, found by path. Read-only, on
//! whichever shard is asked; it must never touch a file or build a page.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What goes out with every page. Nothing is loaded from elsewhere, nothing inline runs, no text becomes markup (trusted types),
/// no other site frames it, and the address, which may hold a token, is told to nobody.
pub const HEADERS: &[(&str, &str)] = &[
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    // A new build's page is seen at once; an unchanged one costs a 304.
    ("Cache-Control", "no-cache"),
];

/// One embedded page.
#[derive(Debug)]
pub struct Page {
    /// Where it is found.
    pub path: &'static str,
    /// With its charset.
    pub content_type: &'static str,
    /// All of it.
    pub bytes: &'static [u8],
    /// A strong validator of these bytes, quotes included (RFC 9110 section 8.8.3).
    pub etag: String,
}

macro_rules! pages {
    ($(($path:literal, $content_type:ident, $file:literal),)*) => {
        const FILES: &[(&str, &str, &[u8])] = &[$(($path, $content_type, include_bytes!($file)),)*];
    };
}

pages![
    ("/", HTML, "index.html"),
    ("/stage.css", CSS, "stage.css"),
    ("/stage.mjs", SCRIPT, "stage.mjs"),
    ("/connection.mjs", SCRIPT, "connection.mjs"),
    ("/protocol.mjs", SCRIPT, "protocol.mjs"),
    ("/flight.mjs", SCRIPT, "flight.mjs"),
    ("/lanes.mjs", SCRIPT, "lanes.mjs"),
    ("/chat.mjs", SCRIPT, "chat.mjs"),
    ("/controls.mjs", SCRIPT, "controls.mjs"),
    ("/favicon.svg", SVG, "favicon.svg"),
    ("/backdrop.svg", SVG, "backdrop.svg"),
];

static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let page = |&(path, content_type, bytes): &(&'static str, &'static str, &'static [u8])| Page {
        path,
        content_type,
        bytes,
        etag: etag(bytes),
    };
    FILES.iter().map(page).collect()
});

/// The page at `path`; `None` where there is none.
pub fn page(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

/// The first 8 bytes of the hash: two builds' pages do not meet by chance.
fn etag(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let mut etag = String::from("\"");
    for byte in &hash[..8] {
        let written = write!(etag, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }
    etag.push('"');
    etag
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::path::Path;

    #[test]
    fn there_is_no_page_where_none_is_embedded() {
        for path in [
            "/index.html",
            "",
            "/../Cargo.toml",
            "/mod.rs",
            "//",
            "/STAGE.CSS",
        ] {
            assert!(page(path).is_none(), "{path}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_a_page_and_every_page_is_found() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
        let mut files = HashSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name != "mod.rs" {
                files.insert(match name.as_str() {
                    "index.html" => "/".to_string(),
                    name => format!("/{name}"),
                });
            }
        }
        let paths: HashSet<String> = FILES.iter().map(|(path, _, _)| path.to_string()).collect();
        assert_eq!(files, paths);
        for path in &paths {
            let page = page(path).unwrap();
            assert!(!page.bytes.is_empty() && page.etag.len() == 18, "{path}");
        }
        let etags: HashSet<&str> = PAGES.iter().map(|page| page.etag.as_str()).collect();
        assert_eq!(etags.len(), PAGES.len());
    }

    /// What a page names in quotes after `mark`, up to the next quote.
    fn named<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
        let rest = text.split(mark).skip(1);
        rest.map(|rest| rest.split(['"', '\'']).next().unwrap())
            .collect()
    }

    #[test]
    fn whatever_a_page_loads_is_embedded_and_nothing_is_inline() {
        let mut loads = 0;
        for found in PAGES.iter() {
            let text = std::str::from_utf8(found.bytes).unwrap();
            let imports = named(text, "from './")
                .into_iter()
                .map(|name| format!("/{name}"));
            let mut links: Vec<String> = imports.collect();
            if found.content_type == HTML {
                for mark in ["src=\"", "href=\""] {
                    links.extend(named(text, mark).into_iter().map(str::to_string));
                }
                assert!(!text.contains("style=") && !text.contains("<style"));
                assert_eq!(
                    text.matches("<script").count(),
                    text.matches("<script type=\"module\" src=").count()
                );
            }
            if found.content_type == CSS {
                links.extend(named(text, "url(\"").into_iter().map(str::to_string));
            }
            for link in links.iter().filter(|link| !link.starts_with('#')) {
                assert!(page(link).is_some(), "{} loads {link}", found.path);
                loads += 1;
            }
        }
        assert!(loads > 8, "the links were not found");
    }
}
