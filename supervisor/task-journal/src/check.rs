pub struct RowRefs;
pub struct Checked;
