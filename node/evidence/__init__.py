"""What proves an offence to anybody: judged offline, from the record alone."""
