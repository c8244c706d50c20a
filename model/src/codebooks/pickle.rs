//! Reads the pickles of PyTorch files as data: nothing in them is executed, and what is no list of tensors is refused.
//!
//! A pickle is a program for a stack machine. Of its instructions those are understood that `torch.save` writes for lists, tuples and
//! tensors (protocol 2), and of the functions that it may call, the ones that put a tensor together.

use std::collections::BTreeMap;

/// What a pickle builds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `None`, truth values and dictionaries, none of which say anything about tensors.
    Nothing,
    Integer(i64),
    Text(String),
    Tuple(Vec<Self>),
    List(Vec<Self>),
    /// A function or class: module and name.
    Global(String),
    Storage(Storage),
    Tensor(Tensor),
}

/// Where numbers are: an entry of the archive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    /// The class, which says what the numbers are.
    pub(super) class: String,
    pub(super) key: String,
    pub(super) len: usize,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Values in values at most; deeper ones are no lists of tensors.
const DEEPEST: usize = 8;

/// Values that a pickle may make, copies of kept ones counted again; 64 bytes of text count as one more. A list of a thousand tensors has
/// some 20,000. Without an end to it, kept tuples of kept tuples of a megabyte would fill any memory.
const MOST_VALUES: usize = 1 << 20;

/// What a pickle stands for.
///
/// # Errors
/// What is in it that is not understood.
pub(super) fn read(bytes: &[u8]) -> Result<Value, String> {
    let mut machine =
        Machine { bytes, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), left: MOST_VALUES };
    loop {
        if let Some(value) = machine.step()? {
            return Ok(value);
        }
    }
}

struct Machine<'b> {
    /// What is left of the program.
    bytes: &'b [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    /// Values to be used again, by number.
    memo: BTreeMap<usize, Value>,
    /// How many more may be made.
    left: usize,
}

impl Machine<'_> {
    /// Executes one instruction; gives the result at the end.
    fn step(&mut self) -> Result<Option<Value>, String> {
        let [code] = self.take()?;
        match code {
            0x80 => {
                self.take::<1>()?;
            }
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
            }
            b'N' | 0x88 | 0x89 | b'}' => self.push(Value::Nothing)?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'K' | b'M' | b'J' | 0x8a => self.integer(code)?,
            b'X' => {
                let len = u32::from_le_bytes(self.take()?) as usize;
                let text = String::from_utf8_lossy(self.take_slice(len)?).into_owned();
                self.push(Value::Text(text))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module} {name}")))?;
            }
            b'q' | b'r' | b'h' | b'j' => self.memory(code)?,
            b't' => {
                let items = self.marked()?;
                self.put_tuple(items)?;
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.put_tuple(items)?;
            }
            b'a' | b'e' => {
                let items = if code == b'a' { self.pop_many(1)? } else { self.marked()? };
                self.append(items)?;
            }
            // Entries of a dictionary.
            b's' => {
                self.pop_many(2)?;
            }
            b'u' => {
                self.marked()?;
            }
            b'Q' => {
                let value = storage(self.pop()?)?;
                self.push(value)?;
            }
            b'R' => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                self.push(call(function, arguments)?)?;
            }
            other => return Err(format!("instruction {other:#04x} is not understood")),
        }
        Ok(None)
    }

    fn integer(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'K' => i64::from(self.take::<1>()?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.take()?)),
            b'J' => i64::from(i32::from_le_bytes(self.take()?)),
            _ => {
                let [len] = self.take()?;
                let digits = self.take_slice(usize::from(len))?;
                if digits.len() > 8 {
                    return Err("a number is too large".to_owned());
                }
                let negative = digits.last().is_some_and(|&digit| digit >= 0x80);
                let mut all = [if negative { 0xff } else { 0 }; 8];
                all[..digits.len()].copy_from_slice(digits);
                i64::from_le_bytes(all)
            }
        };
        self.push(Value::Integer(value))
    }

    /// Keeps the value on top, or puts one there that was kept. Lists are kept as nothing: what is added to them later would
    /// be missing.
    fn memory(&mut self, code: u8) -> Result<(), String> {
        let number = match code {
            b'q' | b'h' => usize::from(self.take::<1>()?[0]),
            _ => u32::from_le_bytes(self.take()?) as usize,
        };
        if matches!(code, b'q' | b'r') {
            self.memo.remove(&number);
            return match self.stack.last().ok_or("it ends too early")? {
                Value::List(_) => Ok(()),
                value => {
                    let value = value.clone();
                    self.spend(size(&value))?;
                    self.memo.insert(number, value);
                    Ok(())
                }
            };
        }
        let kept = self.memo.get(&number).ok_or("it refers to what is not there")?.clone();
        self.push(kept)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last_mut() {
            Some(Value::List(list)) if items.iter().all(|item| depth(item) < DEEPEST) => list.extend(items),
            Some(Value::List(_)) => return Err("values are nested too deeply".to_owned()),
            _ => return Err("something is appended to what is no list".to_owned()),
        }
        Ok(())
    }

    fn put_tuple(&mut self, items: Vec<Value>) -> Result<(), String> {
        if items.iter().any(|item| depth(item) >= DEEPEST) {
            return Err("values are nested too deeply".to_owned());
        }
        self.spend(1)?;
        self.stack.push(Value::Tuple(items));
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        self.spend(size(&value))?;
        self.stack.push(value);
        Ok(())
    }

    fn spend(&mut self, values: usize) -> Result<(), String> {
        let left = self.left.checked_sub(values);
        self.left = left.ok_or_else(|| format!("it makes more than {MOST_VALUES} values"))?;
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "it takes what is not there".to_owned())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, String> {
        let from = self.stack.len().checked_sub(count).ok_or("it takes what is not there")?;
        Ok(self.stack.split_off(from))
    }

    /// What was put on the stack since the last mark.
    fn marked(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("it takes what is not there")?;
        if mark > self.stack.len() {
            return Err("it takes what is not there".to_owned());
        }
        Ok(self.stack.split_off(mark))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (first, rest) = self.bytes.split_first_chunk().ok_or("it ends too early")?;
        self.bytes = rest;
        Ok(*first)
    }

    fn take_slice(&mut self, len: usize) -> Result<&[u8], String> {
        let (first, rest) = self.bytes.split_at_checked(len).ok_or("it ends too early")?;
        self.bytes = rest;
        Ok(first)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n').ok_or("it ends too early")?;
        let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes = &self.bytes[end + 1..];
        Ok(line)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Tuple(items) | Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// How many values it is.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Tuple(items) | Value::List(items) => items.iter().map(size).sum(),
        Value::Text(text) | Value::Global(text) => text.len() / 64,
        Value::Tensor(tensor) => tensor.shape.len() + tensor.strides.len(),
        _ => 0,
    }
}

/// `('storage', class, key, location, length)`
fn storage(value: Value) -> Result<Value, String> {
    let Value::Tuple(parts) = value else { return Err("a storage is described in another way".to_owned()) };
    match &parts[..] {
        [Value::Text(kind), Value::Global(class), Value::Text(key), Value::Text(_), Value::Integer(len)]
            if kind == "storage" =>
        {
            let len = usize::try_from(*len).map_err(|_| "a storage has a negative length")?;
            Ok(Value::Storage(Storage { class: class.clone(), key: key.clone(), len }))
        }
        _ => Err("a storage is described in another way".to_owned()),
    }
}

/// The few functions that make tensors.
fn call(function: Value, arguments: Value) -> Result<Value, String> {
    let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else {
        return Err("it calls what is no function".to_owned());
    };
    match (name.as_str(), &arguments[..]) {
        ("collections OrderedDict", []) => Ok(Value::Nothing),
        ("torch._utils _rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
        (
            "torch._utils _rebuild_tensor_v2",
            [Value::Storage(storage), Value::Integer(offset), Value::Tuple(shape), Value::Tuple(strides), ..],
        ) => {
            let offset = usize::try_from(*offset).map_err(|_| "a tensor has a negative offset")?;
            let (shape, strides) = (sizes(shape)?, sizes(strides)?);
            Ok(Value::Tensor(Tensor { storage: storage.clone(), offset, shape, strides }))
        }
        _ => Err(format!("it calls {name:?}, which is not executed")),
    }
}

fn sizes(values: &[Value]) -> Result<Vec<usize>, String> {
    let size = |value: &Value| match value {
        Value::Integer(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    values.iter().map(size).collect::<Option<_>>().ok_or_else(|| "a tensor's shape is no shape".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Value, read};
    use proptest::prelude::*;

    #[test]
    fn plain_values_are_read() {
        // pickle.dumps([1, (2, 300), -5, None, "ab"], 2)
        let bytes = b"\x80\x02]q\x00(K\x01K\x02M,\x01\x86q\x01J\xfb\xff\xff\xffNX\x02\x00\x00\x00abq\x02e.";
        let pair = Value::Tuple(vec![Value::Integer(2), Value::Integer(300)]);
        let want =
            vec![Value::Integer(1), pair, Value::Integer(-5), Value::Nothing, Value::Text("ab".to_owned())];
        assert_eq!(read(bytes), Ok(Value::List(want)));
    }

    #[test]
    fn calls_are_not_executed() {
        // What a hostile file does: os.system("ls").
        let error =
            read(b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85q\x02Rq\x03.").unwrap_err();
        assert!(error.contains("posix system"), "{error}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut bytes = b"\x80\x02)".to_vec();
        bytes.extend([0x85].repeat(100_000));
        assert!(read(&bytes).unwrap_err().contains("deeply"));
    }

    /// A tuple of kept ones, kept in turn, and so on: each level has a thousand times the values of the one before.
    #[test]
    fn few_instructions_make_no_endless_values() {
        let mut bytes = b"\x80\x02)q\x00".to_vec();
        for level in 0..6 {
            bytes.push(b'(');
            bytes.extend([b'h', level].repeat(1000));
            bytes.extend([b't', b'q', level + 1]);
        }
        assert!(read(&bytes).unwrap_err().contains("more than 1048576 values"));
        // Nor do marks, or text that is kept.
        assert!(read(&[b'('].repeat(2 << 20)).unwrap_err().contains("values"));
        let mut bytes = b"\x80\x02X\x00\x00\x10\x00".to_vec();
        bytes.extend([b'a'].repeat(1 << 20));
        bytes.extend(b"q\x00");
        bytes.extend(b"h\x00".repeat(1000));
        assert!(read(&bytes).unwrap_err().contains("values"));
    }

    #[test]
    fn a_list_that_is_kept_is_not_taken_for_what_was_kept_before() {
        // pickle memo 0: first a number, then a list.
        assert!(read(b"\x80\x02K\x05q\x00]q\x00h\x00.").unwrap_err().contains("not there"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_instructions_make_it_panic(
            codes in prop::collection::vec(prop::sample::select(b"\x80.(N})]KMJ\x8aXcqrhjt\x85\x86\x87aesuQR\x00\x01\n".to_vec()), 0..200),
        ) {
            let _ = read(&codes);
        }
    }
}
