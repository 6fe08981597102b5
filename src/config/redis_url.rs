//! `redis.url` may name several servers, apart by commas: those of a Redis that fails over, or some of a Redis Cluster.

/// The URL once for each server it names; one that names a single server as it is.
pub fn each(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return vec![url.to_owned()];
    };
    let (place, behind) = match rest.find(['/', '?']) {
        Some(at) if scheme != "unix" && scheme != "redis+unix" => rest.split_at(at),
        Some(_) => return vec![url.to_owned()],
        None => (rest, ""),
    };
    // A password may hold a comma, and an @ that is not encoded: the last one ends it.
    let (who, hosts) = match place.rsplit_once('@') {
        Some((who, hosts)) => (format!("{who}@"), hosts),
        None => (String::new(), place),
    };
    let of = |host: &str| format!("{scheme}://{who}{host}{behind}");
    hosts.split(',').map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_gets_a_url_of_its_own() {
        assert_eq!(each("redis://h"), ["redis://h"]);
        assert_eq!(
            each("rediss://u:p,w@a:1,b:2/3?x=1"),
            ["rediss://u:p,w@a:1/3?x=1", "rediss://u:p,w@b:2/3?x=1"]
        );
        assert_eq!(each("redis://a,[::1]:7"), ["redis://a", "redis://[::1]:7"]);
        assert_eq!(each("unix:///run/a,b"), ["unix:///run/a,b"]);
        assert_eq!(each("nonsense"), ["nonsense"]);
    }
}
