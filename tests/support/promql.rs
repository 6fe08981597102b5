//! What a PromQL expression names: series, their label matchers, and the labels it groups by. A reader of tokens, not of
//! meaning; whether an expression is well-formed is for promtool to say.
#![allow(dead_code)] // Each test program uses its part.

/// One label matcher; in prose (`name{label}`) it may stand without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    /// `=`, `!=`, `=~`, `!~`, or nothing.
    pub operator: String,
    pub value: String,
}

/// A name with its matchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
}

/// Everything an expression names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub selectors: Vec<Selector>,
    /// Labels after `by`, `without`, `on`, `ignoring`, `group_left`, `group_right`.
    pub grouping: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
const OPERATORS: [&str; 8] = [
    "and", "or", "unless", "bool", "offset", "atan2", "inf", "nan",
];

/// Reads an expression.
///
/// # Panics
/// On text that is no PromQL: an open string or brace.
pub fn names(expression: &str) -> Names {
    let tokens = tokens(expression);
    let mut names = Names::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let next = tokens.get(at + 1);
        let next_word = match next {
            Some(Token::Word(next)) => next.as_str(),
            _ => "",
        };
        let is_call = next == Some(&Token::Sign('(')) || ["by", "without"].contains(&next_word);
        at += 1;
        if GROUPING.contains(&word.as_str()) {
            while at < tokens.len() && tokens[at] != Token::Sign(')') {
                if let Token::Word(label) = &tokens[at] {
                    names.grouping.push(label.clone());
                }
                at += 1;
            }
        } else if !is_call && !OPERATORS.contains(&word.to_lowercase().as_str()) {
            let mut matchers = Vec::new();
            if next == Some(&Token::Sign('{')) {
                (matchers, at) = read_matchers(&tokens, at + 1);
            }
            names.selectors.push(Selector {
                name: word.clone(),
                matchers,
            });
        }
    }
    names
}

/// Matchers up to the closing brace, and the place after it.
fn read_matchers(tokens: &[Token], mut at: usize) -> (Vec<Matcher>, usize) {
    let mut matchers: Vec<Matcher> = Vec::new();
    loop {
        match tokens.get(at).expect("a closing brace") {
            Token::Sign('}') => return (matchers, at + 1),
            Token::Sign(',') => {}
            Token::Sign(sign) => {
                let matcher = matchers.last_mut().expect("a label before its operator");
                matcher.operator.push(*sign);
            }
            Token::Text(value) => {
                let matcher = matchers.last_mut().expect("a label before its value");
                matcher.value.clone_from(value);
            }
            Token::Word(label) => matchers.push(Matcher {
                label: label.clone(),
                operator: String::new(),
                value: String::new(),
            }),
        }
        at += 1;
    }
}

/// Words, strings and signs; comments, ranges in brackets, numbers and durations are left out.
fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '[' => while rest.next().expect("a closing bracket") != ']' {},
            '"' | '\'' | '`' => {
                let mut text = String::new();
                loop {
                    match rest.next().expect("a closing quote") {
                        end if end == char => break,
                        '\\' if char != '`' => text.extend(rest.next()),
                        inside => text.push(inside),
                    }
                }
                tokens.push(Token::Text(text));
            }
            digit if digit.is_ascii_digit() => {
                while rest
                    .next_if(|c| c.is_ascii_alphanumeric() || *c == '.')
                    .is_some()
                {}
            }
            first if first.is_ascii_alphabetic() || matches!(first, '_' | ':') => {
                let mut word = String::from(first);
                while let Some(more) =
                    rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
                {
                    word.push(more);
                }
                tokens.push(Token::Word(word));
            }
            blank if blank.is_whitespace() => {}
            sign => tokens.push(Token::Sign(sign)),
        }
    }
    tokens
}
