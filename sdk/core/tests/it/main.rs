//! The client against a scripted broker: input -> exact outputs, written as lines of text.

#[cfg(test)]
mod batches;
#[cfg(test)]
mod connection;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod own;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod property;
#[cfg(test)]
mod receipts;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod sends;
