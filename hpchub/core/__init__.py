"""What everything else is made of: values and rules, standard library only, no input or output."""
