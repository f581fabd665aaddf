//! The bytes of x_tables (linux/netfilter_ipv4/ip_tables.h, linux/netfilter/x_tables.h), as far as it takes to find a chain
//! by its name. Everything is in the machine's byte order; an offset that leads out of the bytes ends the search.

/// `XT_TABLE_MAXNAMELEN`
const TABLE_NAME: usize = 32;
/// `struct ipt_getinfo`: name, valid hooks, 5 entries, 5 underflows, number of entries, size
const INFO: usize = TABLE_NAME + 4 + 20 + 20 + 4 + 4;
const INFO_SIZE: usize = INFO - 4;
/// `struct ipt_get_entries`: name, size, and what aligns the entries
const ENTRIES: usize = TABLE_NAME + 8;
/// `struct ipt_entry`: offsets of its target and of the next entry, behind what it matches
const TARGET_OFFSET: usize = 88;
const NEXT_OFFSET: usize = 90;
/// `struct xt_entry_target`: size, name, revision; then its data
const TARGET_NAME: usize = 2;
const TARGET_DATA: usize = 32;
/// The target that marks the head of a chain with its name
const HEAD: &[u8] = b"ERROR";
/// `XT_FUNCTION_MAXNAMELEN`
const CHAIN_NAME: usize = 30;

/// The question for a table's size.
pub(super) fn info_request(table: &str) -> Vec<u8> {
    named(table, INFO)
}

/// The size in its answer.
pub(super) fn size(info: &[u8]) -> Option<usize> {
    let bytes = info.get(INFO_SIZE..INFO)?.try_into().ok()?;
    usize::try_from(u32::from_ne_bytes(bytes)).ok()
}

/// The question for a table's entries, with room for them.
pub(super) fn entries_request(table: &str, size: usize) -> Vec<u8> {
    let mut request = named(table, ENTRIES + size);
    let size = u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes();
    request.splice(TABLE_NAME..TABLE_NAME + 4, size);
    request
}

/// The entries in its answer.
pub(super) fn of(mut answer: Vec<u8>) -> Vec<u8> {
    answer.drain(..ENTRIES.min(answer.len()));
    answer
}

/// Whether a chain of this name begins somewhere in the entries.
pub(super) fn has_chain(mut entries: &[u8], name: &str) -> bool {
    while !entries.is_empty() {
        if head(entries).is_some_and(|found| found == name.as_bytes()) {
            return true;
        }
        match offset(entries, NEXT_OFFSET).and_then(|next| entries.get(next..)) {
            Some(rest) if rest.len() < entries.len() => entries = rest,
            _ => return false,
        }
    }
    false
}

/// The name of the chain that begins with this entry.
fn head(entry: &[u8]) -> Option<&[u8]> {
    let target = entry.get(offset(entry, TARGET_OFFSET)?..)?;
    let kind = target.get(TARGET_NAME..TARGET_DATA - 1)?;
    if until_nul(kind) != HEAD {
        return None;
    }
    target.get(TARGET_DATA..TARGET_DATA + CHAIN_NAME).map(until_nul)
}

fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(usize::from(u16::from_ne_bytes(bytes)))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn named(table: &str, length: usize) -> Vec<u8> {
    let mut bytes = table.as_bytes().to_vec();
    bytes.resize(length, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that matches nothing, with this target.
    fn entry(target: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 112];
        bytes.extend(u16::try_from(TARGET_DATA + data.len()).unwrap().to_ne_bytes());
        bytes.extend(named(target, TARGET_DATA - 2));
        bytes.extend(data);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes.splice(TARGET_OFFSET..TARGET_OFFSET + 2, 112_u16.to_ne_bytes());
        bytes.splice(NEXT_OFFSET..NEXT_OFFSET + 2, length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_chain_is_found_by_its_head_and_not_by_a_jump_or_part_of_a_name() {
        let accept = entry("", &[0; 8]);
        let head = |name: &str| entry("ERROR", &named(name, 32));
        let table = |name: &str| [accept.clone(), head(name), accept.clone(), head("ERROR")].concat();
        assert!(has_chain(&table("aad-metadata"), "aad-metadata"));
        assert!(!has_chain(&table("aad-metadata2"), "aad-metadata"));
        assert!(!has_chain(
            &[accept.clone(), entry("aad-metadata", &[0; 32])].concat(),
            "aad-metadata"
        ));
        assert!(!has_chain(&[], "aad-metadata"));
    }

    #[test]
    fn bytes_that_lead_nowhere_end_the_search() {
        let mut standing = entry("", &[0; 8]);
        standing.splice(NEXT_OFFSET..NEXT_OFFSET + 2, 0_u16.to_ne_bytes());
        assert!(!has_chain(&standing, "aad-metadata"));
        assert!(!has_chain(&[0xff; 100], "aad-metadata"));
    }
}
