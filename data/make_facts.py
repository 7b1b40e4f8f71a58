"""Writes the fact tables in data/facts/: cities with their country, and the chemical elements.

Compiled by hand for Fathometer from general knowledge and dedicated to the public domain (CC0 1.0). City names that are
common to several countries, city-states, and cities that carry their country's name are left out.

    python data/make_facts.py
"""

from __future__ import annotations

import csv
from pathlib import Path

FACTS = Path(__file__).resolve().parent / "facts"

CITIES = """
Afghanistan: Kabul, Kandahar, Herat, Mazar-i-Sharif, Jalalabad
Albania: Tirana, Durrës, Vlorë, Shkodër
Algeria: Oran, Constantine, Annaba, Sétif
Andorra: Escaldes
Angola: Luanda, Huambo, Lobito, Benguela
Argentina: Buenos Aires, Rosario, Mar del Plata, Bariloche, Salta, Neuquén, Ushuaia
Armenia: Yerevan, Gyumri, Vanadzor
Australia: Sydney, Melbourne, Brisbane, Adelaide, Canberra, Darwin, Hobart, Cairns
Austria: Vienna, Graz, Linz, Salzburg, Innsbruck, Klagenfurt
Azerbaijan: Baku, Ganja, Sumqayit
the Bahamas: Nassau
Bahrain: Manama, Muharraq
Bangladesh: Dhaka, Chittagong, Khulna, Rajshahi, Sylhet
Barbados: Bridgetown
Belarus: Minsk, Gomel, Vitebsk, Grodno, Mogilev
Belgium: Brussels, Antwerp, Ghent, Bruges, Liège, Charleroi, Namur, Leuven
Belize: Belmopan
Benin: Cotonou, Porto-Novo, Parakou
Bhutan: Thimphu, Paro
Bolivia: La Paz, Sucre, Cochabamba, Oruro, Potosí
Bosnia and Herzegovina: Sarajevo, Banja Luka, Mostar, Tuzla
Botswana: Gaborone, Francistown, Maun
Brazil: São Paulo, Rio de Janeiro, Brasília, Salvador, Fortaleza, Belo Horizonte, Manaus, Curitiba, Recife, Porto Alegre
Bulgaria: Sofia, Plovdiv, Varna, Burgas
Burkina Faso: Ouagadougou, Bobo-Dioulasso
Burundi: Bujumbura, Gitega
Cambodia: Phnom Penh, Siem Reap, Battambang
Cameroon: Yaoundé, Douala, Bamenda, Garoua
Canada: Toronto, Montreal, Vancouver, Ottawa, Calgary, Edmonton, Winnipeg, Quebec City, Saskatoon
Cape Verde: Praia, Mindelo
the Central African Republic: Bangui
Chad: N'Djamena, Moundou
Chile: Valparaíso, Antofagasta, Punta Arenas, Temuco, Iquique, Puerto Montt
China: Beijing, Shanghai, Guangzhou, Shenzhen, Chengdu, Wuhan, Xi'an, Hangzhou, Nanjing, Tianjin, Chongqing, Harbin
Colombia: Bogotá, Medellín, Cali, Barranquilla, Bucaramanga
the Comoros: Moroni
the Republic of the Congo: Brazzaville, Pointe-Noire
the Democratic Republic of the Congo: Kinshasa, Lubumbashi, Goma, Bukavu, Kisangani
Costa Rica: Puntarenas, Alajuela, Heredia
Croatia: Zagreb, Split, Rijeka, Osijek, Dubrovnik, Zadar
Cuba: Havana, Santiago de Cuba, Camagüey, Holguín
Cyprus: Nicosia, Limassol, Larnaca, Paphos
the Czech Republic: Prague, Brno, Ostrava, Plzeň, Olomouc
Denmark: Copenhagen, Aarhus, Odense, Aalborg
Dominica: Roseau
the Dominican Republic: Santo Domingo, Punta Cana
East Timor: Dili
Ecuador: Quito, Guayaquil, Loja
Egypt: Cairo, Giza, Luxor, Aswan, Port Said
El Salvador: Soyapango, Mejicanos
Equatorial Guinea: Malabo, Bata
Eritrea: Asmara, Massawa
Estonia: Tallinn, Tartu, Narva, Pärnu
Eswatini: Mbabane, Manzini
Ethiopia: Addis Ababa, Dire Dawa, Mekelle, Gondar
Fiji: Suva, Nadi, Lautoka
Finland: Helsinki, Tampere, Turku, Oulu, Espoo, Rovaniemi
France: Paris, Marseille, Lyon, Toulouse, Nice, Nantes, Strasbourg, Bordeaux, Lille, Rennes
Gabon: Libreville, Port-Gentil
the Gambia: Banjul, Serekunda
Georgia: Tbilisi, Batumi, Kutaisi
Germany: Berlin, Hamburg, Munich, Cologne, Stuttgart, Düsseldorf, Leipzig, Dresden, Hanover, Nuremberg, Bremen
Ghana: Accra, Kumasi, Tamale
Greece: Athens, Thessaloniki, Patras, Heraklion, Larissa
Guatemala: Quetzaltenango, Escuintla, Cobán
Guinea: Conakry, Kankan, Nzérékoré
Guinea-Bissau: Bafatá, Gabú
Haiti: Port-au-Prince, Cap-Haïtien, Jacmel
Honduras: Tegucigalpa, San Pedro Sula, La Ceiba
Hungary: Budapest, Debrecen, Szeged, Pécs, Miskolc, Győr
Iceland: Reykjavík, Akureyri
India: Mumbai, New Delhi, Bengaluru, Chennai, Kolkata, Pune, Ahmedabad, Jaipur, Lucknow, Varanasi, Kochi
Indonesia: Jakarta, Surabaya, Bandung, Medan, Makassar, Yogyakarta, Semarang
Iran: Tehran, Isfahan, Shiraz, Tabriz, Mashhad, Qom
Iraq: Baghdad, Basra, Mosul, Erbil, Najaf, Kirkuk
Ireland: Dublin, Cork, Galway, Limerick
Israel: Tel Aviv, Haifa, Beersheba, Eilat
Italy: Rome, Milan, Naples, Turin, Palermo, Genoa, Bologna, Florence, Venice, Verona, Bari
Ivory Coast: Abidjan, Yamoussoukro, Bouaké
Jamaica: Montego Bay, Portmore
Japan: Tokyo, Osaka, Kyoto, Nagoya, Sapporo, Fukuoka, Kobe, Hiroshima, Sendai, Nagasaki, Yokohama
Jordan: Amman, Aqaba, Zarqa, Irbid
Kazakhstan: Astana, Almaty, Shymkent, Karaganda
Kenya: Nairobi, Mombasa, Kisumu, Nakuru, Eldoret
Kiribati: Bairiki
Kosovo: Pristina, Prizren
Kuwait: Hawalli, Salmiya
Kyrgyzstan: Bishkek, Osh, Karakol
Laos: Vientiane, Luang Prabang, Pakse, Savannakhet
Latvia: Riga, Daugavpils, Liepāja, Jūrmala
Lebanon: Beirut, Sidon, Baalbek
Lesotho: Maseru
Liberia: Monrovia, Buchanan
Libya: Benghazi, Misrata, Tobruk, Sabha
Liechtenstein: Vaduz, Schaan
Lithuania: Vilnius, Kaunas, Klaipėda, Šiauliai
Luxembourg: Esch-sur-Alzette, Differdange
Madagascar: Antananarivo, Toamasina, Antsirabe
Malawi: Lilongwe, Blantyre, Zomba, Mzuzu
Malaysia: Kuala Lumpur, Ipoh, Johor Bahru, Kuching, Kota Kinabalu
the Maldives: Malé
Mali: Bamako, Timbuktu, Mopti, Sikasso, Gao
Malta: Valletta, Sliema
the Marshall Islands: Majuro
Mauritania: Nouakchott, Nouadhibou
Mauritius: Port Louis, Curepipe
Mexico: Monterrey, Tijuana, Puebla, Cancún, Acapulco, Oaxaca, Veracruz, Ciudad Juárez
Micronesia: Palikir
Moldova: Chișinău, Tiraspol, Bălți
Mongolia: Ulaanbaatar, Erdenet, Darkhan
Montenegro: Podgorica, Budva, Kotor, Nikšić
Morocco: Casablanca, Rabat, Marrakesh, Fez, Tangier, Agadir
Mozambique: Maputo, Beira, Nampula
Myanmar: Yangon, Mandalay, Naypyidaw, Bagan
Namibia: Windhoek, Swakopmund, Walvis Bay
Nauru: Yaren
Nepal: Kathmandu, Pokhara, Lalitpur, Biratnagar
the Netherlands: Amsterdam, Rotterdam, The Hague, Utrecht, Eindhoven, Groningen, Maastricht, Delft
New Zealand: Auckland, Wellington, Christchurch, Dunedin, Rotorua
Nicaragua: Managua, Masaya, Matagalpa
Niger: Niamey, Agadez, Zinder, Maradi
Nigeria: Lagos, Abuja, Kano, Ibadan, Port Harcourt, Kaduna, Enugu
North Korea: Pyongyang, Hamhung, Wonsan, Kaesong
North Macedonia: Skopje, Bitola, Ohrid
Norway: Oslo, Bergen, Trondheim, Stavanger, Tromsø
Oman: Muscat, Salalah, Nizwa
Pakistan: Karachi, Lahore, Islamabad, Faisalabad, Peshawar, Quetta, Multan, Rawalpindi
Palau: Ngerulmud, Koror
Panama: Colón, Chitré
Papua New Guinea: Port Moresby, Lae
Paraguay: Asunción, Ciudad del Este, Encarnación
Peru: Lima, Arequipa, Cusco, Chiclayo, Iquitos
the Philippines: Manila, Cebu City, Davao, Quezon City, Baguio, Zamboanga
Poland: Warsaw, Kraków, Gdańsk, Wrocław, Poznań, Łódź, Lublin, Katowice
Portugal: Lisbon, Porto, Braga, Coimbra, Faro, Aveiro
Qatar: Doha, Al Khor
Romania: Bucharest, Cluj-Napoca, Timișoara, Iași, Brașov, Constanța
Russia: Moscow, Saint Petersburg, Novosibirsk, Yekaterinburg, Kazan, Vladivostok, Irkutsk, Murmansk, Omsk, Samara
Rwanda: Kigali, Butare
Saint Lucia: Castries
Samoa: Apia
Saudi Arabia: Riyadh, Jeddah, Mecca, Medina, Dammam
Senegal: Dakar, Thiès, Ziguinchor, Kaolack
Serbia: Belgrade, Novi Sad, Niš, Kragujevac
Sierra Leone: Freetown, Makeni
Slovakia: Bratislava, Košice, Žilina, Nitra
Slovenia: Ljubljana, Maribor, Celje, Koper
the Solomon Islands: Honiara
Somalia: Mogadishu, Kismayo
South Africa: Johannesburg, Cape Town, Durban, Pretoria, Bloemfontein, Gqeberha
South Korea: Seoul, Busan, Incheon, Daegu, Daejeon, Gwangju, Ulsan
South Sudan: Juba, Malakal
Spain: Madrid, Barcelona, Seville, Bilbao, Zaragoza, Málaga, Valladolid
Sri Lanka: Colombo, Kandy, Galle, Jaffna, Trincomalee
Sudan: Khartoum, Omdurman, Port Sudan
Suriname: Paramaribo, Lelydorp
Sweden: Stockholm, Gothenburg, Malmö, Uppsala, Linköping, Umeå
Switzerland: Zurich, Geneva, Basel, Bern, Lausanne, Lucerne, Lugano
Syria: Damascus, Aleppo, Homs, Latakia, Palmyra
Taiwan: Taipei, Kaohsiung, Taichung, Tainan
Tajikistan: Dushanbe, Khujand
Tanzania: Dar es Salaam, Dodoma, Arusha, Mwanza
Thailand: Bangkok, Chiang Mai, Phuket, Pattaya, Ayutthaya
Togo: Lomé, Sokodé, Atakpamé
Tonga: Nuku'alofa
Trinidad and Tobago: Port of Spain, Chaguanas
Tunisia: Sfax, Sousse, Kairouan, Bizerte
Turkey: Istanbul, Ankara, Izmir, Antalya, Bursa, Konya, Trabzon, Gaziantep
Turkmenistan: Ashgabat, Türkmenabat
Tuvalu: Funafuti
Uganda: Kampala, Entebbe, Jinja, Gulu
Ukraine: Kyiv, Kharkiv, Odesa, Lviv, Dnipro, Zaporizhzhia
the United Arab Emirates: Dubai, Abu Dhabi, Sharjah, Ajman
the United Kingdom: London, Manchester, Edinburgh, Glasgow, Liverpool, Leeds, Cardiff, Belfast, Bristol, Sheffield
the United States: New York, Los Angeles, Chicago, Houston, Philadelphia, Seattle, Boston, Denver, Miami, Detroit
Uruguay: Montevideo, Salto, Paysandú, Punta del Este
Uzbekistan: Tashkent, Samarkand, Bukhara, Khiva
Vanuatu: Port Vila
Venezuela: Caracas, Maracaibo, Barquisimeto, Maracay
Vietnam: Hanoi, Ho Chi Minh City, Da Nang, Hue, Haiphong
Yemen: Sanaa, Aden, Taiz, Hodeidah
Zambia: Lusaka, Ndola, Kitwe, Livingstone
Zimbabwe: Harare, Bulawayo, Mutare, Gweru
"""

ELEMENTS = """
hydrogen H, helium He, lithium Li, beryllium Be, boron B, carbon C, nitrogen N, oxygen O, fluorine F, neon Ne,
sodium Na, magnesium Mg, aluminium Al, silicon Si, phosphorus P, sulfur S, chlorine Cl, argon Ar, potassium K,
calcium Ca, scandium Sc, titanium Ti, vanadium V, chromium Cr, manganese Mn, iron Fe, cobalt Co, nickel Ni,
copper Cu, zinc Zn, gallium Ga, germanium Ge, arsenic As, selenium Se, bromine Br, krypton Kr, rubidium Rb,
strontium Sr, yttrium Y, zirconium Zr, niobium Nb, molybdenum Mo, technetium Tc, ruthenium Ru, rhodium Rh,
palladium Pd, silver Ag, cadmium Cd, indium In, tin Sn, antimony Sb, tellurium Te, iodine I, xenon Xe, caesium Cs,
barium Ba, lanthanum La, cerium Ce, praseodymium Pr, neodymium Nd, promethium Pm, samarium Sm, europium Eu,
gadolinium Gd, terbium Tb, dysprosium Dy, holmium Ho, erbium Er, thulium Tm, ytterbium Yb, lutetium Lu, hafnium Hf,
tantalum Ta, tungsten W, rhenium Re, osmium Os, iridium Ir, platinum Pt, gold Au, mercury Hg, thallium Tl, lead Pb,
bismuth Bi, polonium Po, astatine At, radon Rn, francium Fr, radium Ra, actinium Ac, thorium Th, protactinium Pa,
uranium U, neptunium Np, plutonium Pu, americium Am, curium Cm, berkelium Bk, californium Cf, einsteinium Es,
fermium Fm, mendelevium Md, nobelium No, lawrencium Lr, rutherfordium Rf, dubnium Db, seaborgium Sg, bohrium Bh,
hassium Hs, meitnerium Mt, darmstadtium Ds, roentgenium Rg, copernicium Cn, nihonium Nh, flerovium Fl,
moscovium Mc, livermorium Lv, tennessine Ts, oganesson Og
"""


def city_rows() -> list[tuple[str, str]]:
    """(city, country), each city once."""
    rows: list[tuple[str, str]] = []
    for line in CITIES.strip().splitlines():
        country, cities = line.split(": ")
        rows += [(city.strip(), country) for city in cities.split(",")]
    names = [city for city, _ in rows]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SystemExit(f"cities that come twice: {', '.join(repeated)}")
    return rows


def element_rows() -> list[tuple[str, str, int]]:
    """(name, symbol, atomic number) of all 118 elements."""
    pairs = [entry.split() for entry in ELEMENTS.replace("\n", " ").split(",")]
    if len(pairs) != 118 or len({symbol for _, symbol in pairs}) != 118:
        raise SystemExit(f"{len(pairs)} elements: 118 with different symbols are needed")
    return [(name, symbol, number) for number, (name, symbol) in enumerate(pairs, start=1)]


def write(
    name: str, header: tuple[str, ...], rows: list[tuple[str, str]] | list[tuple[str, str, int]]
) -> None:
    FACTS.mkdir(parents=True, exist_ok=True)
    with (FACTS / name).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    write("cities.csv", ("city", "country"), city_rows())
    write("elements.csv", ("name", "symbol", "atomic_number"), element_rows())
