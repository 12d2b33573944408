package turretsim

// Who works on the floor and who calls it. All are made up.
var (
	firstNames = []string{"Amelia", "Bruno", "Chiara", "Daniel", "Elif", "Fiona", "Gareth", "Hana", "Idris", "Julia", "Kenji", "Leila", "Marcus", "Nadia", "Oscar", "Priya", "Quentin", "Rosa", "Stefan", "Tessa", "Umar", "Vera", "William", "Yasmin", "Zoltan"}
	lastNames  = []string{"Abbott", "Berger", "Castellano", "Dufour", "Ekström", "Fairbairn", "Goldberg", "Haddad", "Ivanova", "Jansen", "Kowalski", "Laurent", "Mbeki", "Nakamura", "O'Connor", "Petrov", "Quinn", "Rossi", "Schneider", "Takahashi", "Ueda", "Varga", "Whitfield", "Xu", "Young"}
	firms      = []string{"Albion Capital", "Baltic Metals", "Cheapside Brokers", "Danube Bank", "Euston Gilts", "Fleet Energy", "Garonne Asset Management", "Helvetia FX", "Ibex Securities", "Jubilee Rates", "Kestrel Commodities", "Lombard Swaps", "Meridian Treasury", "Northgate Pensions", "Ostsee Handelsbank", "Pembroke Options"}
	desks      = []string{"FX", "RATES", "CREDIT", "EQD", "METALS", "ENERGY"}
)
