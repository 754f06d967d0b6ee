//! Where a code object comes from, as it says itself.

use super::MarshalError;
use super::code::Field;
use super::describe::Tree;
use super::error::MarshalErrorKind;
use super::token::Token;

/// The longest text that is handed out, in bytes: the longest path that Linux takes.
pub const MAX_LEN: usize = 4096;

/// Constants that are looked through for texts.
const MAX_CONSTANTS: usize = 64;

/// What a module's code object says of its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `co_filename` as the bytes that Python makes a path of; `None` if it is no possible path: longer
    /// than [`MAX_LEN`], or with characters that no path has. Whoever wrote the stream chose it.
    pub file_name: Option<Vec<u8>>,
    /// The texts among the module's first constants, none longer than [`MAX_LEN`].
    pub texts: Vec<String>,
}

/// Reads where the code object in a stream comes from.
///
/// Takes up to 32 bytes for a byte of the stream beside what [`check`](super::check) takes.
///
/// # Errors
/// The stream does not unmarshal, or not to a code object.
pub fn origin(data: &[u8]) -> Result<Origin, MarshalError> {
    let tree = Tree::read(data)?;
    read(&tree).ok_or(MarshalError {
        offset: 0,
        kind: MarshalErrorKind::NotCode,
    })
}

fn read(tree: &Tree<'_>) -> Option<Origin> {
    let (Token::Code(_), node) = tree.get(0)? else {
        return None;
    };
    let field = |field: Field| tree.members(node).nth(field as usize);
    let file_name = tree.get(field(Field::FileName)?)?.0;
    let (_, constants) = tree.get(field(Field::Constants)?)?;
    let texts = tree
        .members(constants)
        .take(MAX_CONSTANTS)
        .filter_map(|node| match tree.get(node)?.0 {
            Token::Utf8(text) if text.len() <= MAX_LEN => {
                std::str::from_utf8(text).ok().map(str::to_owned)
            }
            Token::Latin1(text) if text.len() <= MAX_LEN => Some(latin1(text)),
            _ => None,
        })
        .collect();
    Some(Origin {
        file_name: path_of(file_name),
        texts,
    })
}

fn latin1(text: &[u8]) -> String {
    text.iter().map(|&byte| char::from(byte)).collect()
}

/// A text as the bytes of a path.
fn path_of(token: Token<'_>) -> Option<Vec<u8>> {
    let path = match token {
        Token::Utf8(text) if text.len() <= 2 * MAX_LEN => crate::format::utf8::path_bytes(text)?,
        Token::Latin1(text) if text.len() <= MAX_LEN => latin1(text).into_bytes(),
        _ => return None,
    };
    let is_possible = (1..=MAX_LEN).contains(&path.len()) && !path.contains(&0);
    is_possible.then_some(path)
}
