//! Single statements that are not worth preparing: of the start, of the schema, of copies.

use scylla::{
    client::session::Session, deserialize::row::DeserializeRow, serialize::row::SerializeRow,
    statement::unprepared::Statement,
};

use crate::{error::CqlError, keeper::was_applied};

/// The first row of the answer, if there is one. `doing` says in an error what was tried.
pub(crate) async fn first_row<Row>(
    session: &Session,
    doing: &'static str,
    statement: impl Into<Statement>,
    values: impl SerializeRow,
) -> Result<Option<Row>, CqlError>
where
    Row: for<'frame> DeserializeRow<'frame, 'frame>,
{
    let failed = |error: &dyn std::fmt::Display| CqlError::statement(doing, error);
    let result = session.query_unpaged(statement, values).await.map_err(|error| failed(&error))?;
    let rows = result.into_rows_result().map_err(|error| failed(&error))?;
    rows.maybe_first_row().map_err(|error| failed(&error))
}

/// Carries out a conditional statement. Whether its condition held.
pub(crate) async fn conditional(
    session: &Session,
    doing: &'static str,
    statement: String,
    values: impl SerializeRow,
) -> Result<bool, CqlError> {
    let result = session.query_unpaged(statement, values).await;
    was_applied(result.map_err(|error| CqlError::statement(doing, error))?)
}
