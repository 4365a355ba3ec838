//! What a caller may do: one pure decision, whose answer is a value that the acting function demands.
