//! Constants as text, in a form close to Python's `repr`.

use super::describe::Tree;
use super::token::Token;

/// Characters of one text that are shown.
pub(super) const MAX_TEXT: usize = 200;

/// Containers within containers that are shown.
const MAX_DEPTH: usize = 6;

/// What stands for what is left out.
const OMITTED: &str = "…";

/// A string's text, cut to [`MAX_TEXT`] characters; `None` for what is not a string.
pub(super) fn text_of(token: Token<'_>) -> Option<String> {
    let text = match token {
        // Four bytes a character at most, and one more character to see that something is cut.
        Token::Utf8(bytes) => String::from_utf8_lossy(clip(bytes, 4 * (MAX_TEXT + 1))).into_owned(),
        Token::Latin1(bytes) => clip(bytes, MAX_TEXT + 1)
            .iter()
            .map(|&b| char::from(b))
            .collect(),
        _ => return None,
    };
    Some(cut(text, MAX_TEXT))
}

/// The object at a node as text of `max` characters at most, or a few more where it was cut.
pub(super) fn repr(tree: &Tree<'_>, node: usize, max: usize) -> String {
    let mut text = Text {
        out: String::new(),
        left: max,
    };
    text.object(tree, node, MAX_DEPTH);
    text.out
}

fn clip(bytes: &[u8], max: usize) -> &[u8] {
    &bytes[..bytes.len().min(max)]
}

fn cut(mut text: String, max: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(max) {
        text.truncate(at);
        text.push_str(OMITTED);
    }
    text
}

/// A text that stops growing at its limit.
struct Text {
    out: String,
    /// Characters that may still be added.
    left: usize,
}

impl Text {
    fn push(&mut self, text: &str) {
        if self.left == 0 {
            return;
        }
        let cut = cut(text.to_owned(), self.left);
        self.left -= cut.chars().count().min(self.left);
        if cut.len() != text.len() {
            self.left = 0;
        }
        self.out.push_str(&cut);
    }

    fn object(&mut self, tree: &Tree<'_>, node: usize, depth: usize) {
        if self.left == 0 {
            return;
        }
        let Some((token, node)) = tree.get(node) else {
            return;
        };
        match token {
            Token::Null => self.push("<NULL>"),
            Token::None => self.push("None"),
            Token::False => self.push("False"),
            Token::True => self.push("True"),
            Token::StopIteration => self.push("<class 'StopIteration'>"),
            Token::Ellipsis => self.push("Ellipsis"),
            Token::Int(number) => self.push(&number.to_string()),
            Token::Long { negative, digits } => self.push(&long(negative, digits)),
            Token::Float(number) => self.push(&format!("{number:?}")),
            Token::Complex(real, imag) => self.push(&format!("({real:?}{imag:+?}j)")),
            Token::Bytes(bytes) => {
                self.push(&format!("b'{}'", clip(bytes, self.left).escape_ascii()))
            }
            Token::Utf8(_) | Token::Latin1(_) => {
                let text = text_of(token).unwrap_or_default();
                self.push(&format!("'{}'", escape(&text)));
            }
            Token::Tuple(1) => self.members(tree, node, depth, ["(", ",)"]),
            Token::Tuple(_) => self.members(tree, node, depth, ["(", ")"]),
            Token::List(_) => self.members(tree, node, depth, ["[", "]"]),
            Token::Set(0) => self.push("set()"),
            Token::FrozenSet(0) => self.push("frozenset()"),
            Token::Set(_) => self.members(tree, node, depth, ["{", "}"]),
            Token::FrozenSet(_) => self.members(tree, node, depth, ["frozenset({", "})"]),
            Token::Slice => self.members(tree, node, depth, ["slice(", ")"]),
            Token::Dict => self.dict(tree, node, depth),
            Token::Code(_) => {
                let name = tree.code_name(node).unwrap_or_default();
                self.push(&format!("<code {name}>"));
            }
            // A reference to a reference does not exist.
            Token::Ref(_) => self.push(OMITTED),
        }
    }

    fn members(&mut self, tree: &Tree<'_>, node: usize, depth: usize, [open, close]: [&str; 2]) {
        self.push(open);
        if depth == 0 {
            self.push(OMITTED);
        } else {
            for (i, member) in tree.members(node).enumerate() {
                if self.left == 0 {
                    return;
                }
                self.push(if i > 0 { ", " } else { "" });
                self.object(tree, member, depth - 1);
            }
        }
        self.push(close);
    }

    fn dict(&mut self, tree: &Tree<'_>, node: usize, depth: usize) {
        self.push("{");
        let mut members = tree.members(node);
        if depth == 0 {
            self.push(OMITTED);
        } else {
            let mut first = true;
            // The last member is the one that is no object.
            while let (Some(key), Some(value)) = (members.next(), members.next()) {
                if self.left == 0 {
                    return;
                }
                self.push(if first { "" } else { ", " });
                first = false;
                self.object(tree, key, depth - 1);
                self.push(": ");
                self.object(tree, value, depth - 1);
            }
        }
        self.push("}");
    }
}

/// A long integer in decimal, or its size if it is longer than 120 bits.
fn long(negative: bool, digits: &[u8]) -> String {
    let (pairs, _) = digits.as_chunks::<2>();
    let sign = if negative { "-" } else { "" };
    if pairs.len() > 8 {
        return format!("<{sign}int of {} bits>", 15 * pairs.len());
    }
    let number = pairs.iter().rev().fold(0u128, |number, pair| {
        number << 15 | u128::from(u16::from_le_bytes(*pair))
    });
    format!("{sign}{number}")
}

/// Escapes what Python's `repr` of a string escapes, as far as it would spoil a line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' | '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
