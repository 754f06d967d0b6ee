//! What the interpreter checks when it makes a code object.

use super::error::CodeFault;
use super::machine::Value;
use super::token::Counts;

/// A code object's parts, as they arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    counts: Counts,
    values: [Value; Field::COUNT],
    filled: usize,
}

/// The objects within a code object, in the stream's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Bytecode,
    Constants,
    Names,
    Locals,
    LocalKinds,
    FileName,
    Name,
    QualName,
    LineTable,
    ExceptionTable,
}

impl Field {
    /// How many there are.
    pub(super) const COUNT: usize = 10;
    /// The field after which the first line's number stands in the stream.
    pub(super) const BEFORE_FIRST_LINE: usize = Self::QualName as usize;
}

/// A local variable's kind: it is one of the function's own (`CO_FAST_LOCAL`).
pub(super) const KIND_LOCAL: u8 = 0x20;
/// A local variable's kind: an inner function uses it too (`CO_FAST_CELL`).
pub(super) const KIND_CELL: u8 = 0x40;
/// A local variable's kind: it belongs to an outer function (`CO_FAST_FREE`).
pub(super) const KIND_FREE: u8 = 0x80;

/// `CO_VARARGS`: the function has an `*args`.
const VARARGS: i32 = 0x4;
/// `CO_VARKEYWORDS`: the function has a `**kwargs`.
const VARKEYWORDS: i32 = 0x8;

impl Fields {
    pub(super) fn new(counts: Counts) -> Self {
        Self {
            counts,
            values: [Value::Null; Field::COUNT],
            filled: 0,
        }
    }

    /// Puts the next field in; returns which one it was. There must be one left.
    pub(super) fn put(&mut self, value: Value) -> usize {
        let index = self.filled;
        self.values[index] = value;
        self.filled += 1;
        index
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == Field::COUNT
    }

    /// The code object, if the interpreter would make one of these parts.
    pub(super) fn validate(&self, data: &[u8]) -> Result<Value, CodeFault> {
        let of = |field: Field| self.values[field as usize];
        let Counts {
            args,
            positional_only,
            keyword_only,
            stack,
            flags,
        } = self.counts;
        if args < positional_only || positional_only.min(keyword_only).min(stack).min(flags) < 0 {
            return Err(CodeFault::Counts);
        }
        match of(Field::Bytecode) {
            Value::Bytes { len, .. } if len % 2 == 0 => {}
            _ => return Err(CodeFault::Bytecode),
        }
        // Interning the constants follows tuples within tuples, so it never ends on one that
        // contains itself.
        let Value::Tuple {
            open: false,
            hashable,
            ..
        } = of(Field::Constants)
        else {
            return Err(CodeFault::Constants);
        };
        if !matches!(of(Field::Names), Value::Tuple { strings: true, .. }) {
            return Err(CodeFault::Names);
        }
        let (names, kinds) = (of(Field::Locals), of(Field::LocalKinds));
        let kinds = match (names, kinds) {
            (
                Value::Tuple {
                    strings: true,
                    len: names,
                    ..
                },
                Value::Bytes { at, len },
            ) if names == len => &data[at as usize..][..len as usize],
            _ => return Err(CodeFault::Locals),
        };
        let is_string = |field| matches!(of(field), Value::Str);
        if ![Field::FileName, Field::Name, Field::QualName]
            .into_iter()
            .all(is_string)
        {
            return Err(CodeFault::Strings);
        }
        let is_bytes = |field| matches!(of(field), Value::Bytes { .. });
        if ![Field::LineTable, Field::ExceptionTable]
            .into_iter()
            .all(is_bytes)
        {
            return Err(CodeFault::Tables);
        }
        let locals = kinds.iter().filter(|&kind| kind & KIND_LOCAL != 0).count();
        let arguments = i64::from(args)
            + i64::from(keyword_only)
            + i64::from(flags & VARARGS != 0)
            + i64::from(flags & VARKEYWORDS != 0);
        if (locals as i64) < arguments {
            return Err(CodeFault::TooFewLocals);
        }
        // A code object's hash includes that of its constants.
        Ok(Value::Code { hashable })
    }
}
