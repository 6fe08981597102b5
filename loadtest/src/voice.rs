//! What the swarm says: stamped lines that can be measured, or talk for people to look at. Values; any thread.

use crate::clock::Chance;
use crate::dialect::Speech;
use crate::stamp::{Stamp, Stamper};

/// How lines are made.
#[derive(Clone, Debug)]
pub enum Voice {
    /// A stamp and filler, so many bytes of text.
    Stamped {
        /// Bytes of text.
        bytes: usize,
    },
    /// Something a person might say; it carries no stamp.
    Chat,
}

impl Voice {
    /// The next line.
    pub fn line(&self, stamper: &Stamper, stamp: Stamp, chance: &mut Chance) -> Speech {
        match self {
            Voice::Stamped { bytes } => Speech {
                text: stamper.text(stamp, *bytes),
                ..Speech::default()
            },
            Voice::Chat => Speech {
                text: PHRASES[chance.below(PHRASES.len())].to_owned(),
                style: STYLES[chance.below(STYLES.len())],
                giver: None,
            },
        }
    }

    /// The next gift.
    pub fn gift(&self, stamper: &Stamper, stamp: Stamp, chance: &mut Chance) -> Speech {
        match self {
            Voice::Stamped { .. } => self.line(stamper, stamp, chance),
            Voice::Chat => Speech {
                text: GIFTS[chance.below(GIFTS.len())].to_owned(),
                style: None,
                giver: Some(NAMES[chance.below(NAMES.len())]),
            },
        }
    }
}

/// Names for viewers that people are to see.
pub const NAMES: &[&str] = &[
    "Mei", "Jun", "Aki", "Lena", "Tomás", "Xiaoyu", "Noah", "Priya", "Yuki", "Sora", "Inés", "Wei",
    "Omar", "Katya", "Ren", "Lucía", "Haru", "Ming", "Ada", "Koji", "Zoe", "Bao", "Freya", "Hana",
    "Milo", "Nora", "Qing", "Theo", "Vera", "Rui", "Ivy", "Taro",
];

const PHRASES: &[&str] = &[
    "hello from the back row",
    "这首歌太好听了",
    "WOW",
    "666666",
    "first time here, is it always like this?",
    "前方高能",
    "encore!",
    "👏👏👏",
    "that drum solo",
    "哈哈哈哈哈哈",
    "greetings from Lisbon",
    "かわいい！！",
    "who is on the keys?",
    "打卡",
    "goosebumps",
    "the sound is so clear today",
    "8888888",
    "turn it up",
    "不愧是你",
    "I have been waiting for this all week",
    "最高",
    "can we get that again?",
    "泪目",
    "good evening everyone",
    "this part!!!",
    "弹幕护体",
    "how many are we?",
    "冲鸭",
    "beautiful",
    "🔥🔥🔥",
    "just got home, what did I miss",
    "来了来了",
    "the light show is unreal",
    "yes yes yes",
    "here with my whole class",
    "太强了",
];

const STYLES: &[Option<&str>] = &[
    None,
    None,
    None,
    None,
    None,
    None,
    Some(r##"{"color":"#ffd166"}"##),
    Some(r##"{"color":"#7bdff2"}"##),
    Some(r##"{"color":"#b5e48c"}"##),
    Some(r##"{"color":"#ff9bb3"}"##),
    Some(r##"{"color":"#cdb4ff","size":30}"##),
    Some(r##"{"color":"#ffd166","mode":"top"}"##),
    Some(r##"{"color":"#7bdff2","mode":"bottom"}"##),
];

const GIFTS: &[&str] = &["Rocket", "100 roses", "Lantern", "Fireworks", "火箭"];
