//! Assembly text as functions, blocks and instructions.

use super::{
    names,
    syntax::{Effects, Syntax},
};

/// A function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) symbol: String,
    /// The symbol, demangled.
    pub(super) name: String,
    pub(super) blocks: Vec<Block>,
}

impl Function {
    /// All instructions, in the order of the text.
    pub(super) fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.blocks.iter().flat_map(|block| &block.instructions)
    }

    /// Whether anything in it repeats.
    pub(super) fn has_loop(&self) -> bool {
        self.blocks.iter().any(|block| block.header.is_some())
    }
}

/// Instructions that are run one after the other.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The label, empty where nothing jumps to.
    label: String,
    /// The label of the innermost loop that the block is in.
    pub(super) header: Option<String>,
    /// If the block begins a loop: the labels of all loops around that one.
    pub(super) parents: Vec<String>,
    pub(super) instructions: Vec<Instruction>,
}

impl Block {
    /// Takes from a comment what it says about the block's loop or the last instruction.
    fn read_comment(&mut self, comment: &str) {
        let label_after = |marker: &str| {
            let (_, rest) = comment.split_once(marker)?;
            rest.split_whitespace().next().map(str::to_owned)
        };
        if comment.contains("Loop Header: Depth=") {
            self.header = Some(self.label.clone());
        } else if let Some(header) = label_after("in Loop: Header=") {
            self.header = Some(header);
        } else if let Some(parent) = label_after("Parent Loop ") {
            self.parents.push(parent);
        } else if (comment.ends_with("Spill") || comment.ends_with("Reload"))
            && let Some(last) = self.instructions.last_mut()
        {
            last.spill = true;
        }
    }
}

/// An instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    /// Where in the file, counted from 1.
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) effects: Effects,
    /// It moves something between a register and the stack because there were not enough registers.
    pub(super) spill: bool,
}

impl Instruction {
    fn new(line: usize, text: &str, syntax: Syntax) -> Self {
        let (mnemonic, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let effects = syntax.effects(mnemonic, operands.trim());
        Self { line, text: text.replace('\t', " "), effects, spill: false }
    }

    /// The symbols that it names: of the functions it calls, or whose address it takes for calls to come.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &str> {
        self.text
            .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$')))
            .filter(|word| word.starts_with("_R") || word.starts_with("_ZN"))
    }
}

/// All functions of an assembly file that has the compiler's comments in it.
pub(super) fn functions(text: &str, syntax: Syntax) -> Vec<Function> {
    let mut parser = Parser { syntax, functions: Vec::new(), announced: "", open: false };
    for (line, text) in (1..).zip(text.lines()) {
        parser.line(line, text);
    }
    parser.functions
}

struct Parser<'a> {
    syntax: Syntax,
    functions: Vec<Function>,
    /// The symbol that was last said to be a function's: labels of data look the same.
    announced: &'a str,
    /// Whether the last function goes on.
    open: bool,
}

impl<'a> Parser<'a> {
    fn line(&mut self, line: usize, text: &'a str) {
        let (code, comment) = text.split_once(self.syntax.comment()).unwrap_or((text, ""));
        let code = code.trim();
        if let Some(kind) = code.strip_prefix(".type") {
            self.announced = kind.trim().strip_suffix(",@function").unwrap_or_default();
        } else if let Some(label) = code.strip_suffix(':') {
            self.label(label);
        } else if comment.trim_start().starts_with("%bb.") {
            self.block("");
        } else if !code.is_empty() && !code.starts_with('.') {
            let instruction = Instruction::new(line, code, self.syntax);
            if let Some(block) = self.current() {
                block.instructions.push(instruction);
            }
        }
        if let Some(block) = self.current() {
            block.read_comment(comment);
        }
    }

    fn label(&mut self, label: &str) {
        if label.starts_with(".Lfunc_end") {
            self.open = false;
        } else if let Some(block) = label.strip_prefix(".L").filter(|label| label.starts_with("BB")) {
            self.block(block);
        } else if label == self.announced {
            let name = names::demangled(label);
            let blocks = vec![Block::default()];
            self.functions.push(Function { symbol: label.to_owned(), name, blocks });
            self.announced = "";
            self.open = true;
        }
    }

    fn block(&mut self, label: &str) {
        if let Some(function) = self.functions.last_mut().filter(|_| self.open) {
            function.blocks.push(Block { label: label.to_owned(), ..Block::default() });
        }
    }

    fn current(&mut self) -> Option<&mut Block> {
        self.functions.last_mut().filter(|_| self.open)?.blocks.last_mut()
    }
}
