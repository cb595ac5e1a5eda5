"""Detection: windows and rules, signatures and lists make findings; incidents are what an operator sees."""
