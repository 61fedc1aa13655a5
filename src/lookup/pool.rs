//! A few connections to a database, each made when it is needed and kept for the next question.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Trouble;

/// One sort of database.
pub trait Engine {
    /// A connection that can only read.
    type Connection: Send;

    /// Makes a connection on which nothing can be written.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Trouble>> + Send;

    /// Runs a query with this value in each of its places; the first column of each row, up to one more than anybody wants.
    fn ask(
        &self,
        connection: &mut Self::Connection,
        sql: &str,
        value: &str,
    ) -> impl Future<Output = Result<Vec<String>, Trouble>> + Send;
}

/// The connections to one database.
pub struct Pool<E: Engine> {
    engine: E,
    idle: Mutex<Vec<E::Connection>>,
}

impl<E: Engine> Pool<E> {
    /// No connection yet; never more of them than questions at once.
    pub const fn new(engine: E) -> Self {
        Self { engine, idle: Mutex::new(Vec::new()) }
    }

    /// The engine.
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// Runs a query. A kept connection that has died meanwhile costs nothing, for what only reads may be asked again.
    pub async fn ask(&self, sql: &str, value: &str) -> Result<Vec<String>, Trouble> {
        let kept = self.idle().pop();
        if let Some(kept) = kept {
            match self.ask_on(kept, sql, value).await {
                Err(Trouble::Away(_)) => {}
                said => return said,
            }
        }
        let new = self.engine.connect().await?;
        self.ask_on(new, sql, value).await
    }

    /// What was asked and not answered to its end leaves its connection behind.
    async fn ask_on(&self, mut connection: E::Connection, sql: &str, value: &str) -> Result<Vec<String>, Trouble> {
        let said = self.engine.ask(&mut connection, sql, value).await;
        if said.as_ref().is_ok_and(|rows| rows.len() <= super::MOST_FOUND) {
            self.idle().push(connection);
        }
        said
    }

    fn idle(&self) -> MutexGuard<'_, Vec<E::Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
