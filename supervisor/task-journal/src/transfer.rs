pub struct Transferred;
