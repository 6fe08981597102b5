//! Figures as people read them: counts, rates, times, bytes, dates; and strings made safe to print.
//!
//! Pure functions, on whichever thread makes an output. A figure that is not finite has no value and becomes
//! [`NO_VALUE`]; nothing here panics, whatever the figure.

/// What stands where a figure has no value.
pub const NO_VALUE: &str = "-";

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things per second.
    Rate,
    /// Microseconds of waiting.
    Micros,
    /// Bytes.
    Bytes,
    /// Seconds, of a clock or of CPU.
    Seconds,
    /// CPU in cores: CPU seconds per second.
    Cores,
    /// A part of a whole, 0 to 1.
    Share,
}

impl Unit {
    /// `value` with its unit, for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Count => count(value),
            Unit::Rate => rate(value),
            Unit::Micros => micros(value),
            Unit::Bytes => bytes(value),
            Unit::Seconds => seconds(value),
            Unit::Cores => format!("{} cores", short(value)),
            Unit::Share => share(value),
        }
    }

    /// The one scale that suits an axis from zero to `max`: what to divide by, and the suffix of every label.
    pub fn axis(self, max: f64) -> (f64, &'static str) {
        let pick = |scales: &[(f64, &'static str)]| {
            // Twice, so that an axis up to 1,000 reads 200, 400, ... and not 0.2 k, 0.4 k.
            let fits = scales
                .iter()
                .rev()
                .find(|(divisor, _)| max >= 2.0 * *divisor);
            *fits.unwrap_or(&scales[0])
        };
        match self {
            Unit::Count => pick(&[(1.0, ""), (1e3, " k"), (1e6, " M"), (1e9, " G")]),
            Unit::Rate => pick(&[(1.0, "/s"), (1e3, " k/s"), (1e6, " M/s"), (1e9, " G/s")]),
            Unit::Micros => pick(&[(1.0, " µs"), (1e3, " ms"), (1e6, " s"), (3.6e9, " h")]),
            Unit::Bytes => pick(BYTE_SCALES),
            // Seconds up to four minutes, minutes up to four hours: ticks are then whole.
            Unit::Seconds if max >= 14_400.0 => (3600.0, " h"),
            Unit::Seconds if max >= 240.0 => (60.0, " min"),
            Unit::Seconds => (1.0, " s"),
            Unit::Cores => (1.0, ""),
            Unit::Share => (0.01, " %"),
        }
    }
}

const BYTE_SCALES: &[(f64, &str)] = &[
    (1.0, " B"),
    (1024.0, " KiB"),
    (1_048_576.0, " MiB"),
    (1_073_741_824.0, " GiB"),
    (1_099_511_627_776.0, " TiB"),
];

/// Every digit, in groups of three: `1,234,567`. For counts that must add up.
pub fn exact(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count that came as a float: every digit while it is a whole number a float can tell, else shortened.
pub fn count(value: f64) -> String {
    if value >= 0.0 && value.fract() == 0.0 && value < 9e15 {
        exact(value as u64)
    } else {
        short(value)
    }
}

/// Three significant digits: `870`, `12.3 k`, `4.5 M`.
pub fn short(value: f64) -> String {
    scaled(
        value,
        &[
            (1.0, ""),
            (1e3, " k"),
            (1e6, " M"),
            (1e9, " G"),
            (1e12, " T"),
        ],
    )
}

/// Per second: `870/s`, `4.5 M/s`.
pub fn rate(per_s: f64) -> String {
    if per_s.is_finite() {
        format!("{}/s", short(per_s))
    } else {
        NO_VALUE.to_string()
    }
}

/// A time given in microseconds: `870 µs`, `93 ms`, `1.25 s`, `2 min 05 s`.
pub fn micros(us: f64) -> String {
    if us >= 120e6 {
        return seconds(us / 1e6);
    }
    scaled(us, &[(1.0, " µs"), (1e3, " ms"), (1e6, " s")])
}

/// A time given in seconds: `850 ms`, `6.72 s`, `2 min 05 s`, `1 h 02 min`.
pub fn seconds(s: f64) -> String {
    if !(119.5..1e15).contains(&s) {
        return scaled(s * 1e6, &[(1.0, " µs"), (1e3, " ms"), (1e6, " s")]);
    }
    let whole = s.round() as u64;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", exact(whole / 3600), whole / 60 % 60)
    }
}

/// Bytes in powers of 1024: `380 B`, `12.3 KiB`, `1.45 GiB`.
pub fn bytes(bytes: f64) -> String {
    scaled(bytes, BYTE_SCALES)
}

/// A part of a whole in percent. What is not nothing never reads as 0 %, what is not all never as 100 %.
pub fn share(part: f64) -> String {
    let percent = part * 100.0;
    if percent > 0.0 && percent < 0.01 {
        "<0.01 %".to_string()
    } else if percent > 99.99 && percent < 100.0 {
        ">99.99 %".to_string()
    } else if percent > 99.0 && percent < 100.0 {
        format!("{percent:.2} %")
    } else {
        scaled(percent, &[(1.0, " %")])
    }
}

/// A date and time in UTC from milliseconds since 1970: `2026-11-22 23:37:30 UTC`.
pub fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `text` with nothing in it that steers a terminal or a reader's eye: control characters and the marks that turn
/// the direction of writing become U+FFFD, a line break or a tab a space.
pub fn printable(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(safe).collect()
}

/// Terminal columns that `text` takes: two for East Asian wide characters and emoji, else one.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Terminal columns of one character; see [`columns`].
pub fn columns_of(c: char) -> usize {
    let wide = matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd);
    if wide { 2 } else { 1 }
}

/// `value` on the largest scale that it fills, with three significant digits.
fn scaled(value: f64, scales: &[(f64, &str)]) -> String {
    if !value.is_finite() {
        return NO_VALUE.to_string();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    let mut index = 0;
    // 0.9995 and not 1: what rounds to 1000 of one scale is 1 of the next.
    while index + 1 < scales.len() && size >= scales[index + 1].0 * 0.9995 {
        index += 1;
    }
    let (divisor, suffix) = scales[index];
    format!("{sign}{}{suffix}", digits(size / divisor))
}

/// Three significant digits without trailing zeros; at least the whole part.
fn digits(size: f64) -> String {
    let decimals = match size {
        s if s >= 1e9 => return format!("{size:.2e}"),
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.1 || s == 0.0 => 2,
        s if s >= 0.001 => 4,
        _ => return format!("{size:.1e}"),
    };
    let text = format!("{size:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 {
        month_shifted + 3
    } else {
        month_shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates() {
        assert_eq!(exact(0), "0");
        assert_eq!(exact(999), "999");
        assert_eq!(exact(1_000), "1,000");
        assert_eq!(exact(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(short(12_345.0), "12.3 k");
        assert_eq!(short(999_600.0), "1 M", "rounding climbs to the next scale");
        assert_eq!(short(0.25), "0.25");
        assert_eq!(short(-4_500_000.0), "-4.5 M");
        assert_eq!(rate(4_500_000.0), "4.5 M/s");
        assert_eq!(rate(870.0), "870/s");
        assert_eq!(count(1_234.0), "1,234");
        assert_eq!(count(0.5), "0.5");
    }

    #[test]
    fn times_bytes_shares_dates() {
        assert_eq!(micros(0.0), "0 µs");
        assert_eq!(micros(93_000.0), "93 ms");
        assert_eq!(micros(1_250_000.0), "1.25 s");
        assert_eq!(seconds(0.85), "850 ms");
        assert_eq!(seconds(125.0), "2 min 05 s");
        assert_eq!(seconds(119.7), "2 min 00 s");
        assert_eq!(seconds(3_720.0), "1 h 02 min");
        assert_eq!(bytes(380.0), "380 B");
        assert_eq!(bytes(1_048_576.0 * 1.5), "1.5 MiB");
        assert_eq!(share(1.0), "100 %");
        assert_eq!(
            share(0.999_999_9),
            ">99.99 %",
            "one lost of ten million is not 100 %"
        );
        assert_eq!(share(0.998), "99.80 %");
        assert_eq!(share(0.000_000_1), "<0.01 %");
        assert_eq!(share(0.0), "0 %");
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_390_650_000), "2026-11-22 23:37:30 UTC");
    }

    #[test]
    fn what_is_not_finite_has_no_value() {
        for figure in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for unit in [
                Unit::Count,
                Unit::Rate,
                Unit::Micros,
                Unit::Bytes,
                Unit::Seconds,
                Unit::Share,
            ] {
                let shown = unit.show(figure);
                assert_eq!(shown, NO_VALUE, "{unit:?} of {figure}");
            }
        }
        assert!(short(f64::MAX).len() < 20);
    }

    #[test]
    fn a_hostile_string_cannot_steer_a_terminal() {
        assert_eq!(
            printable("a\x1b[2Jb\nc\u{202e}d"),
            "a\u{fffd}[2Jb c\u{fffd}d"
        );
        assert_eq!(printable("弹幕 ✓"), "弹幕 ✓");
        assert_eq!(columns("弹幕 ok"), 7);
    }
}
