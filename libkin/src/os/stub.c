int kin__stub;
int kin__stub;
