//! The column `text` of Parquet files, as datasets are shared.

use crate::error::{Error, Result};
use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
    schema::types::Type,
};
use std::{fs::File, path::Path, sync::Arc};

/// Calls `take` with the text of each row until it says that it has enough.
pub(super) fn for_each_text(path: &Path, mut take: impl FnMut(&str) -> Result<bool>) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path))?;
    let damaged = |error: ParquetError| {
        Error::file(
            path,
            format!("cannot be read as Parquet ({error})"),
            "download it again, or give .jsonl files",
        )
    };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let schema = reader.metadata().file_metadata().schema();
    let column = schema.get_fields().iter().find(|field| field.name() == "text").map(Arc::clone);
    let column = column.ok_or_else(|| {
        Error::file(path, "has no column \"text\"", "give files whose documents are in a column of that name")
    })?;
    let only_text =
        Type::group_type_builder(schema.name()).with_fields(vec![column]).build().map_err(damaged)?;
    for row in reader.get_row_iter(Some(only_text)).map_err(damaged)? {
        let row = row.map_err(damaged)?;
        if !take(row.get_string(0).map_err(damaged)?)? {
            break;
        }
    }
    Ok(())
}
