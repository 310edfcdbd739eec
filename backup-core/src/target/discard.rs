//! Nowhere: reads and checks everything, keeps nothing.

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::{Filling, Intake, Target};
use crate::error::Result;
use crate::manifest::{EntryRecord, Manifest};
use crate::source::Source;

/// Takes any snapshot and keeps nothing of it: to see that it can be read, or how fast.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

#[async_trait]
impl Target for Discard {
    fn location(&self) -> String {
        "discard:".into()
    }

    async fn open(&self, _: &Manifest, _: &Filling) -> Result<Box<dyn Intake>> {
        Ok(Box::new(Self))
    }

    fn read_back(&self) -> Option<Box<dyn Source>> {
        None
    }

    async fn is_vacant(&self) -> Result<bool> {
        Ok(true)
    }

    async fn remove(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Intake for Discard {
    fn wants(&self, _: &EntryRecord) -> bool {
        true
    }

    async fn take(&self, _: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        body.try_for_each(|_| futures::future::ready(Ok(()))).await
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
