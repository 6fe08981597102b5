//! What a person gave: values from the file, the environment and the command line, each with its place, and every mistake.
//!
//! Runs on the main thread at start and on reload. Later sources win: file, environment, flags.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::keys::{ARRAYS, Array, KEYS, Key, did_you_mean};

/// One thing that is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line:column`, an environment variable, or a flag.
    pub place: String,
    /// The setting, `table.key`.
    pub key: String,
    /// What was found; never a secret.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.place, self.key)?;
        writeln!(f, "  found:   {}", self.found)?;
        write!(f, "  allowed: {}", self.allowed)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint:    {hint}"),
            None => Ok(()),
        }
    }
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Quoted, or from the environment or a flag.
    Text(String),
    /// A bare whole number.
    Whole(i64),
    /// A bare number with a point.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A list of texts.
    List(Vec<String>),
    /// Anything else, by its kind.
    Other(&'static str),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "\"{text}\""),
            Raw::Whole(n) => write!(f, "{n}"),
            Raw::Float(n) => write!(f, "{n}"),
            Raw::Flag(flag) => write!(f, "{flag}"),
            Raw::List(items) => write!(f, "{items:?}"),
            Raw::Other(kind) => f.write_str(kind),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub struct Given {
    pub raw: Raw,
    pub place: String,
    /// From the environment or a flag: everything is text there, and `5` means the number.
    pub loose: bool,
}

/// One table of an array.
#[derive(Clone, Debug)]
pub struct Entry {
    pub place: String,
    pub values: HashMap<&'static str, Given>,
}

/// Everything that was given.
#[derive(Debug, Default)]
pub struct Gathered {
    pub values: HashMap<&'static str, Given>,
    pub arrays: HashMap<&'static str, Vec<Entry>>,
    /// `DANMAKU_AUTH__SECRET`.
    pub secret: Option<String>,
    /// `DANMAKU_API_KEY`.
    pub api_key: Option<String>,
    pub mistakes: Vec<Mistake>,
}

impl Gathered {
    /// Takes a config file.
    pub fn file(&mut self, name: &str, text: &str) {
        let places = Places { name, text };
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().unwrap_or(0..0);
                self.mistakes.push(Mistake {
                    place: places.at(&at),
                    key: "the file as a whole".into(),
                    found: error.message().lines().collect::<Vec<_>>().join(" "),
                    allowed: "TOML".into(),
                    hint: Some("`danmaku default-config` prints a file with every key".into()),
                });
                return;
            }
        };
        self.table(&places, "", table.get_ref());
    }

    fn table(&mut self, places: &Places<'_>, above: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = match above {
                "" => name.get_ref().to_string(),
                above => format!("{above}.{}", name.get_ref()),
            };
            let place = places.at(&name.span());
            if let Some(array) = ARRAYS.iter().find(|array| array.path == path) {
                self.array(places, array, &place, value.get_ref());
            } else if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                let raw = raw(value.get_ref());
                let given = Given {
                    raw,
                    place,
                    loose: false,
                };
                self.values.insert(key.path, given);
            } else if let (DeValue::Table(inner), true) = (value.get_ref(), is_table(&path)) {
                self.table(places, &path, inner);
            } else {
                self.unknown(place, &path, names_below(above));
            }
        }
    }

    fn array(
        &mut self,
        places: &Places<'_>,
        array: &'static Array,
        place: &str,
        value: &DeValue<'_>,
    ) {
        let DeValue::Array(items) = value else {
            self.mistakes.push(Mistake {
                place: place.into(),
                key: array.path.into(),
                found: raw(value).to_string(),
                allowed: format!("tables, each begun by [[{}]]", array.path),
                hint: None,
            });
            return;
        };
        for item in items.iter() {
            let mut entry = Entry {
                place: places.at(&item.span()),
                values: HashMap::new(),
            };
            let DeValue::Table(table) = item.get_ref() else {
                self.mistakes.push(Mistake {
                    place: entry.place,
                    key: array.path.into(),
                    found: raw(item.get_ref()).to_string(),
                    allowed: format!("a table, begun by [[{}]]", array.path),
                    hint: None,
                });
                continue;
            };
            for (name, value) in table {
                let place = places.at(&name.span());
                match array.keys.iter().find(|key| key.path == name.get_ref()) {
                    Some(key) => {
                        let raw = raw(value.get_ref());
                        let given = Given {
                            raw,
                            place,
                            loose: false,
                        };
                        entry.values.insert(key.path, given);
                    }
                    None => {
                        let path = format!("{}.{}", array.path, name.get_ref());
                        let names = array.keys.iter().map(|key| key.path.to_string());
                        self.unknown(place, &path, names.collect());
                    }
                }
            }
            self.arrays.entry(array.path).or_default().push(entry);
        }
    }

    fn unknown(&mut self, place: String, path: &str, names: Vec<String>) {
        let last = path.rsplit('.').next().unwrap_or(path);
        let hint = did_you_mean(last, names.iter().map(String::as_str));
        self.mistakes.push(Mistake {
            place,
            key: path.into(),
            found: "a key that does not exist".into(),
            allowed: names.join(", "),
            hint: hint.map(|name| format!("did you mean {name}?")),
        });
    }

    /// Takes the environment: `DANMAKU_` and the path in capitals with `__`. Whatever else begins so is a mistake.
    pub fn environment(&mut self, variables: &mut dyn Iterator<Item = (String, String)>) {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("DANMAKU_") else {
                continue;
            };
            match rest {
                "AUTH__SECRET" => self.secret = Some(value),
                "API_KEY" => self.api_key = Some(value),
                // Read by whoever looks for the file.
                "CONFIG" => {}
                // What an orchestrator sets for a service called danmaku says nothing to us.
                rest if is_orchestrators(rest) => {}
                _ => match KEYS.iter().find(|key| variable(key) == name) {
                    Some(key) => self.loose(key.path, name, value),
                    None => {
                        let names: Vec<String> = KEYS.iter().map(variable).collect();
                        let hint = did_you_mean(&name, names.iter().map(String::as_str));
                        self.mistakes.push(Mistake {
                            place: "environment".into(),
                            key: name.clone(),
                            found: "a variable that means nothing here".into(),
                            allowed: "DANMAKU_ and a key's path in capitals, with __ between table and key".into(),
                            hint: hint.map(|name| format!("did you mean {name}?")),
                        });
                    }
                },
            }
        }
    }

    /// Takes a flag, if it was given.
    pub fn flag(&mut self, path: &'static str, flag: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.loose(path, flag.into(), value.into());
        }
    }

    fn loose(&mut self, path: &'static str, place: String, value: String) {
        let given = Given {
            raw: Raw::Text(value),
            place,
            loose: true,
        };
        self.values.insert(path, given);
    }
}

/// Kubernetes and Docker links set `DANMAKU_SERVICE_HOST`, `DANMAKU_PORT_8080_TCP_ADDR` and the like, also for services
/// like `danmaku-redis`.
fn is_orchestrators(rest: &str) -> bool {
    let rest = format!("_{rest}");
    !rest.contains("__")
        && (rest.contains("_SERVICE_HOST")
            || rest.contains("_SERVICE_PORT")
            || rest.contains("_PORT_")
            || rest.ends_with("_PORT"))
}

/// A key's environment variable.
pub fn variable(key: &Key) -> String {
    format!("DANMAKU_{}", key.path.to_uppercase().replace('.', "__"))
}

/// Whether keys or arrays lie below this path.
fn is_table(path: &str) -> bool {
    !names_below(path).is_empty()
}

/// The names that may stand in a table.
fn names_below(table: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let paths = KEYS.iter().map(|key| key.path);
    for path in paths.chain(ARRAYS.iter().map(|array| array.path)) {
        let below = match table {
            "" => Some(path),
            table => path
                .strip_prefix(table)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        if let Some(name) = below.and_then(|rest| rest.split('.').next())
            && !names.iter().any(|known| known == name)
        {
            names.push(name.into());
        }
    }
    names
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Raw::Whole(n),
            Err(_) => Raw::Other("a number too large"),
        },
        DeValue::Float(n) => match n.as_str().parse() {
            Ok(n) => Raw::Float(n),
            Err(_) => Raw::Other("a number"),
        },
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            match texts.collect() {
                Some(texts) => Raw::List(texts),
                None => Raw::Other("a list of other things than texts"),
            }
        }
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Finds lines and columns.
struct Places<'a> {
    name: &'a str,
    text: &'a str,
}

impl Places<'_> {
    fn at(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        format!("{}:{line}:{column}", self.name)
    }
}
