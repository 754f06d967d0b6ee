//! A code object's description, for people.

use serde::Serialize;

use super::code::{Field, KIND_CELL, KIND_FREE, KIND_LOCAL};
use super::error::{MarshalError, MarshalErrorKind};
use super::machine::{Machine, Observer};
use super::repr::{MAX_TEXT, repr, text_of};
use super::token::{Cursor, Token};

/// Constants, names and functions that a description lists in all; what is beyond is left out.
const MAX_ITEMS: usize = 10_000;

/// Functions within functions that a description follows.
const MAX_FUNCTIONS_DEEP: usize = 32;

/// What a code object is called and holds. Texts are cut to some 200 characters, and the whole
/// description, nested functions included, to 10,000 items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeInfo {
    /// Its name, such as `<module>` or a function's.
    pub name: String,
    /// Its name with those of the functions around it.
    pub qualname: String,
    /// The source file it names; nothing says that it exists.
    pub filename: String,
    /// The first line's number.
    pub first_line: i32,
    /// Positional arguments, the positional-only ones included.
    pub arg_count: i32,
    /// Positional-only arguments.
    pub positional_only_arg_count: i32,
    /// Keyword-only arguments.
    pub keyword_only_arg_count: i32,
    /// The stack slots it needs.
    pub stack_size: i32,
    /// The flags, as `co_flags` has them.
    pub flags: i32,
    /// The names of the flags that have one, such as `NEWLOCALS`.
    pub flag_names: Vec<&'static str>,
    /// The bytecode's length in bytes.
    pub code_len: usize,
    /// The constants, each in a form close to Python's `repr`; a nested function as `<code name>`.
    pub constants: Vec<String>,
    /// The names of globals and attributes that it uses.
    pub names: Vec<String>,
    /// Its own variables, arguments first.
    pub locals: Vec<String>,
    /// The variables that its inner functions use too.
    pub cells: Vec<String>,
    /// The variables that it takes from outer functions.
    pub free: Vec<String>,
    /// The code objects among its constants.
    pub functions: Vec<CodeInfo>,
    /// Something was left out, here or in a nested function, because there is too much of it.
    pub truncated: bool,
}

/// `inspect`'s names for `co_flags`, lowest bit first.
const FLAG_NAMES: [(i32, &str); 13] = [
    (0x1, "OPTIMIZED"),
    (0x2, "NEWLOCALS"),
    (0x4, "VARARGS"),
    (0x8, "VARKEYWORDS"),
    (0x10, "NESTED"),
    (0x20, "GENERATOR"),
    (0x80, "COROUTINE"),
    (0x100, "ITERABLE_COROUTINE"),
    (0x200, "ASYNC_GENERATOR"),
    (0x100_0000, "FUTURE_ANNOTATIONS"),
    (0x400_0000, "HAS_DOCSTRING"),
    (0x800_0000, "METHOD"),
    (0x40, "NOFREE"),
];

/// Describes the code object in a stream.
///
/// Takes up to 32 bytes for a byte of the stream beside what [`check`](super::check) takes.
///
/// # Errors
/// The stream does not unmarshal, or not to a code object.
pub fn describe(data: &[u8]) -> Result<CodeInfo, MarshalError> {
    let tree = Tree::read(data)?;
    let mut left = MAX_ITEMS;
    tree.describe(0, MAX_FUNCTIONS_DEEP, &mut left)
        .ok_or(MarshalError {
            offset: 0,
            kind: MarshalErrorKind::NotCode,
        })
}

/// An object's place in the stream, and where the next object that is not within it is recorded.
#[derive(Debug, Clone, Copy)]
struct Node {
    at: u32,
    end: u32,
}

/// Records where objects begin and end, in the order of the stream.
#[derive(Default)]
struct Recorder {
    nodes: Vec<Node>,
    open: Vec<u32>,
    refs: Vec<u32>,
}

impl Observer for Recorder {
    fn enter(&mut self, at: usize, referable: bool) {
        // Both fit: the machine refuses streams of 4 GiB, and an object takes a byte at least.
        let index = self.nodes.len() as u32;
        self.nodes.push(Node {
            at: at as u32,
            end: 0,
        });
        self.open.push(index);
        if referable {
            self.refs.push(index);
        }
    }

    fn leave(&mut self) {
        let end = self.nodes.len() as u32;
        if let Some(index) = self.open.pop() {
            self.nodes[index as usize].end = end;
        }
    }
}

/// A stream that has been read whole, with its objects' places.
pub(super) struct Tree<'a> {
    data: &'a [u8],
    nodes: Vec<Node>,
    refs: Vec<u32>,
}

impl<'a> Tree<'a> {
    /// Reads a stream whole.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, MarshalError> {
        let outcome = Machine::new(data, Recorder::default()).run()?;
        Ok(Self {
            data,
            nodes: outcome.observer.nodes,
            refs: outcome.observer.refs,
        })
    }

    /// The object at a node, references followed, and the node that it is at.
    pub(super) fn get(&self, node: usize) -> Option<(Token<'a>, usize)> {
        let token = |node: usize| {
            let at = self.nodes.get(node)?.at as usize;
            let (token, _) = Cursor::new(self.data, at).token().ok()?;
            Some(token)
        };
        match token(node)? {
            Token::Ref(number) => {
                let target = *self.refs.get(usize::try_from(number).ok()?)? as usize;
                Some((token(target)?, target))
            }
            other => Some((other, node)),
        }
    }

    /// The nodes directly within a node.
    pub(super) fn members(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.nodes.get(node).map_or(0, |node| node.end as usize);
        std::iter::successors(Some(node + 1), |&next| {
            self.nodes.get(next).map(|node| node.end as usize)
        })
        .take_while(move |&next| next < end)
    }

    fn describe(&self, node: usize, depth: usize, left: &mut usize) -> Option<CodeInfo> {
        let (Token::Code(counts), node) = self.get(node)? else {
            return None;
        };
        let fields: Vec<usize> = self.members(node).take(Field::COUNT).collect();
        let field = |field: Field| fields.get(field as usize).copied();
        let text = |which| text_of(self.get(field(which)?)?.0);
        let bytes = |which| match self.get(field(which)?)?.0 {
            Token::Bytes(bytes) => Some(bytes),
            _ => None,
        };
        // The number stands right before the line table.
        let line_table = self.nodes.get(field(Field::LineTable)?)?.at as usize;
        let first_line = Cursor::new(self.data, line_table.checked_sub(4)?)
            .int()
            .ok()?;

        let mut truncated = false;
        let mut listed = |tuple: usize, left: &mut usize| {
            let mut nodes: Vec<usize> = self.members(tuple).take(*left + 1).collect();
            truncated |= nodes.len() > *left;
            nodes.truncate(*left);
            *left -= nodes.len();
            nodes
        };
        let (_, constants) = self.get(field(Field::Constants)?)?;
        let (_, names) = self.get(field(Field::Names)?)?;
        let (_, locals) = self.get(field(Field::Locals)?)?;
        let constants = listed(constants, left);
        let names = listed(names, left);
        let locals = listed(locals, left);

        let string = |&node: &usize| self.get(node).and_then(|(token, _)| text_of(token));
        let kinds = bytes(Field::LocalKinds)?;
        let of_kind = |wanted: u8, not: u8| {
            let kinds = locals.iter().zip(kinds);
            kinds
                .filter(|(_, kind)| *kind & wanted != 0 && *kind & not == 0)
                .filter_map(|(node, _)| string(node))
                .collect()
        };
        let mut functions = Vec::new();
        for &constant in &constants {
            // Only where it stands: a reference to a function is listed as a constant and no more.
            let is_here = self
                .get(constant)
                .is_some_and(|(token, at)| at == constant && matches!(token, Token::Code(_)));
            if is_here && depth == 0 {
                truncated = true;
            } else if is_here {
                functions.extend(self.describe(constant, depth - 1, left));
            }
        }
        truncated |= functions
            .iter()
            .any(|function: &CodeInfo| function.truncated);
        Some(CodeInfo {
            name: text(Field::Name)?,
            qualname: text(Field::QualName)?,
            filename: text(Field::FileName)?,
            first_line,
            arg_count: counts.args,
            positional_only_arg_count: counts.positional_only,
            keyword_only_arg_count: counts.keyword_only,
            stack_size: counts.stack,
            flags: counts.flags,
            flag_names: FLAG_NAMES
                .iter()
                .filter(|(bit, _)| counts.flags & bit != 0)
                .map(|(_, name)| *name)
                .collect(),
            code_len: bytes(Field::Bytecode)?.len(),
            constants: constants
                .iter()
                .map(|&node| repr(self, node, MAX_TEXT))
                .collect(),
            names: names.iter().filter_map(string).collect(),
            locals: of_kind(KIND_LOCAL, 0),
            cells: of_kind(KIND_CELL, 0),
            free: of_kind(KIND_FREE, 0),
            functions,
            truncated,
        })
    }

    /// The name of the code object at a node.
    pub(super) fn code_name(&self, node: usize) -> Option<String> {
        let name = self.members(node).nth(Field::Name as usize)?;
        text_of(self.get(name)?.0)
    }
}

#[cfg(test)]
mod tests;
